"""An image tower of open_clip on the meta device, cut as `encoders/open_clip.py` cuts it."""

from collections.abc import Sequence
from typing import Any

import open_clip
from torch import nn

from maskselect.encoders.frozen import declare_levels
from maskselect.encoders.timm import vit_grid
from maskselect.structures.features import FeatureInfo


class OpenClipSketch(nn.Module):
    """Stands for an `OpenClipEncoder`, whose arguments these are; `pretrained` and `checkpoint` change no shape.

    open_clip moves what it builds to a device of its own choice, which is named here; so the class itself would end
    with tensors that have values. Raises ValueError for an unknown model or a layer that does not exist.
    """

    def __init__(
        self,
        name: str,
        model: str,
        image_size: int,
        layers: Sequence[int] = (-2,),
        final_norm: bool = False,
        model_args: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        config = open_clip.get_model_config(model)
        if config is None:
            raise ValueError(f"open_clip has no model {model!r}")
        vision = {**config["vision_cfg"], **(model_args or {}), "image_size": image_size}
        if vision.get("timm_model_name"):
            vision.update(timm_model_pretrained=False)
        tower: Any = open_clip.create_model(model, device="meta", vision_cfg=vision).visual
        trunk = getattr(tower, "trunk", None)
        if trunk is not None and vit_grid(trunk) is not None:
            trunk.set_input_size(img_size=image_size)
        cut = tower if trunk is None else trunk
        rows: tuple[int, int] | None
        if trunk is None:
            levels = [{"num_chs": int(tower.conv1.out_channels), "reduction": 1}] * len(tower.transformer.resblocks)
            rows = (int(tower.grid_size[0]), int(tower.grid_size[1]))
        else:
            levels, rows = trunk.feature_info, vit_grid(trunk)
        channels, grid = declare_levels(levels, layers, image_size, rows)
        nobody = (0.0, 0.0, 0.0)
        self.info = FeatureInfo(name, channels, image_size, grid, nobody, nobody)
        kept = [layer % len(levels) for layer in layers]
        cut.prune_intermediate_layers(kept, prune_norm=not final_norm, prune_head=True)
        self.tower = cut.requires_grad_(False)
