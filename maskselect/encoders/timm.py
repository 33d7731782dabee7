"""Any image network of timm as a frozen `Encoder` (ViT, ConvNet, hybrid), by name plus keyword arguments."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import timm
from torch import Tensor, nn

from maskselect.backends import hub_cache, needs
from maskselect.backends.checkpoints import load_into
from maskselect.backends.weightless import reads_weights
from maskselect.encoders.frozen import FrozenEncoder, as_triple, declare_levels
from maskselect.encoders.stem import ConvStem
from maskselect.structures.features import FeatureInfo
from maskselect.structures.needs import Arguments, Need


class TimmEncoder(FrozenEncoder):
    """A timm model that returns the outputs of chosen layers.

    Args:
        name: short name, unique within an ensemble.
        model: timm's name, for example "vit_large_patch14_dinov2.lvd142m" or "resnet18".
        image_size: longer side in pixels to which images are resized.
        layers: which levels, by index into timm's `feature_info` (ViT: blocks, ConvNet: stem and stages; negative
            numbers count from the end, so [-2] is CLIP's penultimate block). Later layers are removed.
        final_norm: apply the model's own last norm to the features (SigLIP, DINOv2: True; CLIP for LLaVA: False).
        mean, std: RGB normalisation; by default that of timm's `pretrained_cfg`.
        interpolation: how images are resized.
        stem: "own", or "conv" for a ViT with `ConvStem` as patch embedding (compact ViTs; not with pretrained weights).
        pretrained: fetch the weights that timm names (network, or a filled hub cache).
        checkpoint: one of ours instead, by shipped name or path, with a card of system "encoder".
        model_args: further arguments of `timm.create_model`.

    Raises:
        ValueError: for an unknown model, arguments that it does not take, a layer that does not exist, or both
            `pretrained` and `checkpoint`.
        FileNotFoundError: when the weights cannot be fetched.
    """

    def __init__(
        self,
        name: str,
        model: str,
        image_size: int,
        layers: Sequence[int] = (-1,),
        final_norm: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        interpolation: str = "bicubic",
        stem: Literal["own", "conv"] = "own",
        pretrained: bool = False,
        checkpoint: str | None = None,
        model_args: dict[str, Any] | None = None,
    ) -> None:
        if pretrained and checkpoint:
            raise ValueError(f"encoder {name!r}: give either pretrained=True or a checkpoint, not both")
        arguments = dict(model_args or {})
        if stem == "conv":
            arguments |= {"embed_layer": ConvStem, "img_size": image_size}
        trunk = create_trunk(model, image_size, pretrained and reads_weights(), arguments)
        levels, grid = declare_levels(trunk.feature_info, layers, image_size, vit_grid(trunk))
        defaults = trunk.pretrained_cfg
        info = FeatureInfo(
            name=name,
            levels=levels,
            input_size=image_size,
            grid=grid,
            mean=as_triple(mean or defaults["mean"], "mean"),
            std=as_triple(std or defaults["std"], "std"),
            covered=covered_side(trunk, image_size),
            any_shape=reads_any_shape(trunk),
        )
        # Counted from the start, because pruning changes what negative numbers count from.
        chosen = [layer % len(trunk.feature_info) for layer in layers]
        declared = {"model": model, "layers": chosen, "final_norm": final_norm, "model_args": model_args}
        super().__init__(info, interpolation, **declared)
        self.layers, self.final_norm = chosen, final_norm
        trunk.prune_intermediate_layers(self.layers, prune_norm=not final_norm, prune_head=True)
        self.trunk = trunk
        if checkpoint:
            load_into(self, checkpoint, "encoder")
        self.freeze()

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Its checkpoint, or the weights that timm fetches."""
        found, further = super().needs(arguments), arguments.get("model_args") or {}
        if not arguments.get("pretrained") or any(key in further for key in ("pretrained_cfg", "checkpoint_path")):
            return found
        own = (further.get("pretrained_cfg_overlay") or {}).get("file")
        if own:
            return found + needs.file(own, f"encoder {arguments['name']}", "a file of weights of that model")
        return found + hub_cache.timm_weights(arguments["model"])

    def maps(self, images: Tensor) -> list[Tensor]:
        """Normalised (B, 3, H, W) to one (B, C_i, h_i, w_i) map per layer; prefix tokens of a ViT are dropped."""
        if vit_grid(self.trunk) is not None:  # patches begin at the top left; what they do not cover is not read
            height, width = (side - side % self.trunk.patch_embed.patch_size[0] for side in images.shape[-2:])
            images = images[..., :height, :width]
        maps: list[Tensor] = self.trunk.forward_intermediates(
            images, indices=self.layers, norm=self.final_norm, output_fmt="NCHW", intermediates_only=True
        )
        return maps


def create_trunk(model: str, image_size: int, pretrained: bool, model_args: dict[str, Any]) -> Any:
    """The timm model without classifier, ViT grids set to `image_size`; errors are those of `TimmEncoder`.

    Networks with a patch grid also read images that are not square, where they have an argument for it.
    """
    if not timm.is_model(model):
        close = ", ".join(timm.list_models(f"{model[:6]}*")[:4]) or "none"
        raise ValueError(f"timm has no model {model!r}; close names: {close}")
    arguments = {"num_classes": 0, **model_args}
    try:
        trunk = _any_shape_model(model, pretrained, arguments)
        if vit_grid(trunk) is not None and trunk.patch_embed.img_size != (image_size, image_size):
            trunk.set_input_size(img_size=image_size)  # resamples position embeddings, pretrained ones too
    except TypeError as error:
        raise ValueError(f"timm model {model!r} does not take these arguments: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"weights of timm model {model!r} are not in the hub cache and could not be fetched ({reason}); "
            f"run once with network: python -c \"import timm; timm.create_model('{model}', pretrained=True)\""
        ) from error
    if not hasattr(trunk, "forward_intermediates"):
        raise ValueError(f"timm model {model!r} has no forward_intermediates; choose a model with feature maps")
    return trunk


def _any_shape_model(model: str, pretrained: bool, arguments: dict[str, Any]) -> Any:
    """`timm.create_model` with the network's own argument for images of any shape, where it has one."""
    for extra in ({"dynamic_img_size": True}, {"strict_img_size": False}):  # plain ViTs and Eva; Swin
        with suppress(TypeError):
            return timm.create_model(model, pretrained=pretrained, **extra, **arguments)
    return timm.create_model(model, pretrained=pretrained, **arguments)


def reads_any_shape(trunk: Any) -> bool:
    """Whether a network reads images that are not square: every ConvNet does, a ViT where it was built to."""
    return vit_grid(trunk) is None or not getattr(trunk.patch_embed, "strict_img_size", True)


def vit_grid(trunk: nn.Module) -> tuple[int, int] | None:
    """(h, w) of a ViT's patch grid, or None for another kind of network."""
    grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    return None if grid is None else (int(grid[0]), int(grid[1]))


def covered_side(trunk: Any, image_size: int) -> float:
    """`FeatureInfo.covered` of a network: the share of the side that the patches of a ViT cover, 1 for a ConvNet."""
    grid = vit_grid(trunk)
    return 1.0 if grid is None else min(1.0, grid[0] * int(trunk.patch_embed.patch_size[0]) / image_size)
