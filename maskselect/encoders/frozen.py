"""What every learned encoder shares: bringing images to its own size and normalisation, and staying frozen."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import needs
from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.structures.features import FeatureInfo, FeatureLevel, FeatureMap
from maskselect.structures.needs import Arguments, Need

Triple = tuple[float, float, float]


class FrozenEncoder(nn.Module):
    """An image network that is always in evaluation mode and takes no gradient, until `thaw` is called to pretrain it.

    A subclass implements `maps`. `encode` is the call of the protocol; `forward` is for training: it merges the levels
    and keeps gradients.

    Args:
        info: what the encoder declares; a contract test compares it with a real forward.
        interpolation: "bilinear" or "bicubic", both antialiased, for images of another side than `info.input_size`.
        declared: further settings that decide its maps beside the weights; they are part of its cache key.

    Raises:
        ValueError: for another interpolation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, info: FeatureInfo, interpolation: str = "bicubic", **declared: object) -> None:
        super().__init__()
        if interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation {interpolation!r} is unknown; expected 'bilinear' or 'bicubic'")
        self.info = info
        self.interpolation = interpolation
        self._declared = declared
        self.thawed = False
        # Not persistent: they belong to the config, and float16 storage would round them.
        self.register_buffer("mean", torch.tensor(info.mean, dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(info.std, dtype=torch.float32)[:, None, None], persistent=False)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The checkpoint that it is given."""
        return needs.checkpoint(arguments.get("checkpoint"), f"encoder {arguments.get('name', '')}".strip())

    def maps(self, images: Tensor) -> list[Tensor]:
        """Normalised (B, 3, H, W) to one (B, C_i, h_i, w_i) map for each of `info.levels`."""
        raise NotImplementedError

    def levels(self, images: Tensor) -> list[FeatureMap]:
        """`encode` with gradients; maps are float32."""
        held = next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)
        maps = self.maps(self.prepare(images).to(held))
        strides = [level.stride for level in self.info.levels]
        return [FeatureMap(m.float(), self.info, stride) for m, stride in zip(maps, strides, strict=True)]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to the merged levels (B, C, h, w) float32, differentiable when thawed."""
        return merged(self.levels(images)).features

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[FeatureMap]:
        """See `structures.protocols.Encoder`; maps are float32."""
        return self.levels(images)

    def cache_key(self) -> str:
        """Of the weights, what it declares, and how images are resized."""
        settings = {"info": self.info, "interpolation": self.interpolation, "weights": weights_digest(self)}
        return cache_key(type(self).__name__, **settings, **self._declared)

    def prepare(self, images: Tensor) -> Tensor:
        """Resize the longer side to `info.input_size`, normalise and pad: (B, 3, H, W) in [0, 1] to what `maps` takes.

        Raises:
            ValueError: for images that are not square where the network reads no others.
        """
        height, width = images.shape[-2:]
        if height != width and not self.info.any_shape:
            raise ValueError(f"encoder {self.info.name!r} reads square images, got {height} x {width}; pad them first")
        scale = self.info.input_size / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        if (height, width) != size:
            images = F.interpolate(images, size, mode=self.interpolation, antialias=True, align_corners=False)
            images = images.clamp(0, 1)  # bicubic overshoots
        pixels = (images - self.mean) / self.std
        if height != width:
            coarsest = max(level.stride for level in self.info.levels)
            pixels = F.pad(pixels, (0, -size[1] % coarsest, 0, -size[0] % coarsest))
        return pixels.contiguous(memory_format=torch.channels_last)

    def freeze(self) -> None:
        """Evaluation mode, no gradients; what a constructed encoder is."""
        self.thawed = False
        self.eval()
        self.requires_grad_(False)

    def thaw(self) -> None:
        """Allow training; only the encoder's own pretraining calls this."""
        self.thawed = True
        self.train()
        self.requires_grad_(True)

    def hold_in(self, dtype: torch.dtype) -> None:
        """Hold the weights in another dtype; images are normalised before they are cast, and maps are float32."""
        for child in self.children():
            child.to(dtype)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Ignored while frozen, so that batch statistics cannot drift inside a training system."""
        super().train(mode and self.thawed)
        return self


def merged(maps: Sequence[FeatureMap]) -> FeatureMap:
    """The maps of one encoder as one: brought bilinearly to the finest grid and concatenated, float32.

    This is how Cambrian-1 reads the stages of a ConvNet.
    """
    finest = min(maps, key=lambda m: m.stride)
    grid = finest.features.shape[-2:]
    same = [
        m.features.float()
        if m.features.shape[-2:] == grid
        else F.interpolate(m.features.float(), size=grid, mode="bilinear", align_corners=False)
        for m in maps
    ]
    return FeatureMap(torch.cat(same, 1), finest.info, finest.stride)


def as_triple(values: Sequence[float], what: str) -> Triple:
    """Three numbers as a tuple of floats.

    Raises:
        ValueError: for another count.
    """
    if len(values) != 3:
        raise ValueError(f"{what} needs three values, one for each of R, G and B; got {list(values)}")
    return float(values[0]), float(values[1]), float(values[2])


def declare_levels(
    feature_info: Sequence[dict[str, Any]], layers: Sequence[int], input_size: int, grid: tuple[int, int] | None
) -> tuple[tuple[FeatureLevel, ...], tuple[int, int]]:
    """The named levels of timm's `feature_info`, and the finest (h, w) for a square image.

    Args:
        feature_info: timm's, one entry a layer.
        layers: indices into it; negative ones count from the end.
        input_size: side of the image in pixels.
        grid: the patch grid, where the network has one. It counts where the finest level has it: 384 px by patches of
            14 leave a border unread. Else (h, w) follows from the reduction, rounded up as padded strided convolutions
            do.

    Raises:
        ValueError: for a layer that does not exist.
    """
    count = len(feature_info)
    for layer in layers:
        if not -count <= layer < count:
            raise ValueError(f"layer {layer} does not exist; the model has {count} (0 to {count - 1}, or negative)")
    chosen = [feature_info[layer] for layer in layers]
    levels = tuple(FeatureLevel(int(level["num_chs"]), int(level["reduction"])) for level in chosen)
    finest = min(level.stride for level in levels)
    side = -(-input_size // finest)
    return levels, grid if grid is not None and grid[0] == input_size // finest else (side, side)
