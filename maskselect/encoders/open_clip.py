"""Image towers of open_clip as frozen `Encoder`s: its own ViTs, and those around a timm trunk (ConvNeXt, SigLIP)."""

from collections.abc import Sequence
from typing import Any

import open_clip
from torch import Tensor, nn

from maskselect.backends import hub_cache
from maskselect.backends.checkpoints import load_into
from maskselect.backends.weightless import reads_weights
from maskselect.encoders.frozen import FrozenEncoder, Triple, as_triple, declare_levels
from maskselect.encoders.timm import covered_side, reads_any_shape, vit_grid
from maskselect.structures.features import FeatureInfo
from maskselect.structures.needs import Arguments, Need

CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)


class OpenClipEncoder(FrozenEncoder):
    """The image tower of an open_clip model, without its text tower.

    Args:
        name: short name, unique within an ensemble.
        model: open_clip's name, for example "ViT-L-14-336-quickgelu" or "convnext_xxlarge".
        image_size: longer side in pixels to which images are resized.
        pretrained: open_clip's tag, for example "openai" or "laion2b_s34b_b82k_augreg_soup" (network, or a filled
            cache), or the path of a weights file; None leaves random weights.
        layers: ViT blocks or ConvNet levels; [-2] is CLIP's penultimate block, which LLaVA and Cambrian-1 read.
        final_norm: apply the tower's last norm to the features (SigLIP: True).
        mean, std: RGB normalisation. It is an argument because `create_model_and_transforms` returns OpenAI's values
            for SigLIP, which was trained with 0.5.
        interpolation: how images are resized.
        checkpoint: one of ours instead, by shipped name or path, with a card of system "encoder".
        model_args: changes to the vision part of open_clip's model config, for example {"layers": 2, "width": 64}.

    Raises:
        ValueError: for an unknown model or tag, or a layer that does not exist.
        FileNotFoundError: when the weights cannot be fetched.
    """

    def __init__(
        self,
        name: str,
        model: str,
        image_size: int,
        pretrained: str | None = None,
        layers: Sequence[int] = (-2,),
        final_norm: bool = False,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        interpolation: str = "bicubic",
        checkpoint: str | None = None,
        model_args: dict[str, Any] | None = None,
    ) -> None:
        if pretrained and checkpoint:
            raise ValueError(f"encoder {name!r}: give either pretrained or a checkpoint, not both")
        tower = create_tower(model, image_size, pretrained if reads_weights() else None, model_args or {})
        trunk = getattr(tower, "trunk", None)
        if trunk is not None:
            levels = trunk.feature_info
            declared_levels, grid = declare_levels(levels, layers, image_size, vit_grid(trunk))
            covered, any_shape = covered_side(trunk, image_size), reads_any_shape(trunk)
        else:
            width, patch = int(tower.conv1.out_channels), int(tower.conv1.kernel_size[0])
            levels = [{"num_chs": width, "reduction": patch}] * len(tower.transformer.resblocks)
            rows, columns = (int(side) for side in tower.grid_size)
            declared_levels, grid = declare_levels(levels, layers, image_size, (rows, columns))
            covered, any_shape = rows * patch / image_size, False
        mean, std = as_triple(mean, "mean"), as_triple(std, "std")
        chosen = [
            layer % len(levels) for layer in layers
        ]  # before pruning, which changes what negative numbers count from
        declared = {"model": model, "layers": chosen, "final_norm": final_norm, "model_args": model_args}
        info = FeatureInfo(name, declared_levels, image_size, grid, mean, std, covered, any_shape)
        super().__init__(info, interpolation, **declared)
        self.layers, self.final_norm = chosen, final_norm
        cut = trunk if trunk is not None else tower
        cut.prune_intermediate_layers(self.layers, prune_norm=not final_norm, prune_head=True)
        self.wraps_timm = trunk is not None
        self.tower = cut
        if checkpoint:
            load_into(self, checkpoint, "encoder")
        self.freeze()

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Its checkpoint, or the weights that open_clip fetches."""
        tag = arguments.get("pretrained")
        found = hub_cache.open_clip_weights(arguments["model"], tag) if tag else []
        return super().needs(arguments) + found

    def maps(self, images: Tensor) -> list[Tensor]:
        """Normalised (B, 3, H, W) to one (B, C_i, h_i, w_i) map per layer, without the class token."""
        if self.wraps_timm:
            maps: list[Tensor] = self.tower.forward_intermediates(
                images, indices=self.layers, norm=self.final_norm, output_fmt="NCHW", intermediates_only=True
            )
            return maps
        result: dict[str, list[Tensor]] = self.tower.forward_intermediates(
            images, indices=self.layers, normalize_intermediates=self.final_norm, intermediates_only=True
        )
        return result["image_intermediates"]


def create_tower(model: str, image_size: int, pretrained: str | None, model_args: dict[str, Any]) -> Any:
    """The image tower at `image_size`; errors are those of `OpenClipEncoder`."""
    config = open_clip.get_model_config(model)
    if config is None:
        names = [name for name in open_clip.list_models() if name.lower()[:6] == model.lower()[:6]][:4]
        raise ValueError(f"open_clip has no model {model!r}; close names: {', '.join(names) or 'none'}")
    vision = {**config["vision_cfg"], **model_args, "image_size": image_size}
    if vision.get("timm_model_name"):
        vision.update(timm_model_pretrained=False)
    try:
        # Without a device, open_clip chooses one by itself.
        device = "cpu" if reads_weights() else "meta"
        whole = open_clip.create_model(model, pretrained=pretrained, device=device, vision_cfg=vision)
    except RuntimeError as error:
        if not pretrained:
            raise
        tags = open_clip.list_pretrained_tags_by_model(model)
        if pretrained not in tags:
            known = ", ".join(tags) or "none"
            raise ValueError(f"open_clip model {model!r} has no weights {pretrained!r}; it has {known}") from error
        raise _unfetched(model, pretrained, error) from error
    except OSError as error:
        raise _unfetched(model, pretrained, error) from error
    trunk = getattr(whole.visual, "trunk", None)
    if trunk is not None and vit_grid(trunk) is not None:
        trunk.set_input_size(img_size=image_size)  # open_clip leaves a timm ViT at the size in its name
    tower: nn.Module = whole.visual
    return tower


def _unfetched(model: str, pretrained: str | None, error: Exception) -> FileNotFoundError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return FileNotFoundError(
        f"weights {pretrained!r} of open_clip model {model!r} are not in the hub cache and could not be fetched "
        f"({reason}); run once with network"
    )
