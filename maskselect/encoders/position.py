"""The 2-D sinusoidal position map that RAS counts as one more encoder (section 3.2: a 32x32 map)."""

import math

import torch
from torch import Tensor, nn

from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.structures.features import FeatureInfo, FeatureLevel, FeatureMap


class SinusoidEncoder(nn.Module):
    """A fixed map that encodes the position of each cell, whatever the image shows.

    Args:
        name: short name, unique within an ensemble.
        grid: side of the map in cells.
        frequencies: F; the map has 4 F channels (sine and cosine, x and y).
        lowest, highest: half-waves across the image of the first and the last frequency, spaced geometrically. The
            mean of one under a mask is sin or cos at the centroid times a factor that falls with the extent of the
            mask. The lowest has at most half a wave across the image, so it is monotonic and encodes the centroid; the
            factor of higher ones encodes the extent. The paper does not state its frequencies.

    Raises:
        ValueError: for fewer than one frequency.
    """

    table: Tensor

    def __init__(
        self, name: str = "position", grid: int = 32, frequencies: int = 12, lowest: float = 0.5, highest: float = 16.0
    ) -> None:
        super().__init__()
        if frequencies < 1:
            raise ValueError(f"frequencies must be at least 1, got {frequencies}")
        zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        self.info = FeatureInfo(name, (FeatureLevel(4 * frequencies, 1),), grid, (grid, grid), zero, one)
        waves = torch.logspace(math.log10(lowest), math.log10(highest), frequencies, dtype=torch.float32)
        centres = (torch.arange(grid) + 0.5) / grid
        angles = math.pi * waves[:, None] * centres  # (F, grid)
        rows = torch.cat([angles.sin(), angles.cos()])[:, :, None].expand(-1, grid, grid)
        columns = torch.cat([angles.sin(), angles.cos()])[:, None, :].expand(-1, grid, grid)
        self.register_buffer("table", torch.cat([columns, rows]).contiguous(), persistent=False)

    def cache_key(self) -> str:
        """Covers the table, which depends on every setting."""
        return cache_key("SinusoidEncoder", info=self.info, weights=weights_digest(self))

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[FeatureMap]:
        """(B, 3, S, S), of which only B matters, to the same (B, 4 F, grid, grid) map for each.

        Raises:
            ValueError: for images that are not square.
        """
        height, width = images.shape[-2:]
        if height != width:
            raise ValueError(f"encoder {self.info.name!r} reads square images, got {height} x {width}; pad them first")
        return [FeatureMap(self.table.expand(len(images), -1, -1, -1), self.info, 1)]
