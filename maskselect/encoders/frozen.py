"""What every learned encoder shares: bringing images to its own size and normalisation, and staying frozen."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import needs
from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.structures.features import FeatureInfo, FeatureMap
from maskselect.structures.needs import Arguments, Need

Triple = tuple[float, float, float]


class FrozenEncoder(nn.Module):
    """An image network that is always in evaluation mode and takes no gradient, until `thaw` is called to pretrain it.

    A subclass gives `maps`. `encode` is the protocol's call; `forward` is the same without `no_grad`, for pretraining.

    info: what the encoder declares; a contract test compares it with a real forward.
    interpolation: "bilinear" or "bicubic", both antialiased, for images of another side than `info.input_size`.
    declared: further settings that decide its maps beside the weights; they are part of its cache key.
    Raises ValueError for another interpolation.
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
        """Normalised (B, 3, S, S) to one or more (B, C_i, h_i, w_i) maps, finest grid first or in any order."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, H) float in [0, 1] to (B, C, h, w) float32, differentiable when thawed.

        Several levels are brought bilinearly to the finest grid and concatenated (Cambrian-1's multi-stage features).
        Raises ValueError when the images are not square.
        """
        held = next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)
        levels = self.maps(self.prepare(images).to(held))
        grid = self.info.grid
        same = [
            m if m.shape[-2:] == grid else F.interpolate(m.float(), size=grid, mode="bilinear", align_corners=False)
            for m in levels
        ]
        return torch.cat([m.float() for m in same], 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> FeatureMap:
        """(B, 3, H, H) float in [0, 1], any side, to a map on `info.grid`. Raises ValueError for a non-square image."""
        return FeatureMap(self(images), self.info)

    def cache_key(self) -> str:
        """Of the weights, what it declares, and how images are resized."""
        settings = {"info": self.info, "interpolation": self.interpolation, "weights": weights_digest(self)}
        return cache_key(type(self).__name__, **settings, **self._declared)

    def prepare(self, images: Tensor) -> Tensor:
        """Resize to `info.input_size` and normalise: (B, 3, H, H) in [0, 1] to (B, 3, S, S)."""
        height, width = images.shape[-2:]
        if height != width:
            raise ValueError(f"encoder {self.info.name!r} reads square images, got {height} x {width}; pad them first")
        side = self.info.input_size
        if height != side:
            images = F.interpolate(images, (side, side), mode=self.interpolation, antialias=True, align_corners=False)
            images = images.clamp(0, 1)  # bicubic overshoots
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

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


def as_triple(values: Sequence[float], what: str) -> Triple:
    """Three numbers as a tuple of floats. Raises ValueError for another count."""
    if len(values) != 3:
        raise ValueError(f"{what} needs three values, one for each of R, G and B; got {list(values)}")
    return float(values[0]), float(values[1]), float(values[2])


def declare_levels(
    feature_info: Sequence[dict[str, Any]], layers: Sequence[int], input_size: int, grid: tuple[int, int] | None
) -> tuple[int, tuple[int, int]]:
    """Channels (summed) and finest (h, w) of the named levels, from timm's `feature_info`.

    grid: the patch grid of a ViT, where it is known (384 px by patches of 14 leaves a border unused); else it follows
        from the reduction, rounded up as padded strided convolutions do.
    Raises ValueError for a level that does not exist.
    """
    count = len(feature_info)
    for layer in layers:
        if not -count <= layer < count:
            raise ValueError(f"layer {layer} does not exist; the model has {count} (0 to {count - 1}, or negative)")
    chosen = [feature_info[layer] for layer in layers]
    channels = sum(int(level["num_chs"]) for level in chosen)
    reduction = min(int(level["reduction"]) for level in chosen)
    side = -(-input_size // reduction)
    return channels, grid or (side, side)
