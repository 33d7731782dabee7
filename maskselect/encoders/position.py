"""The 2-D sinusoidal position map that RAS counts as one more encoder (section 3.2: a 32x32 map)."""

import math

import torch
from torch import Tensor, nn

from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.structures.features import FeatureInfo, FeatureLevel, FeatureMap


class SinusoidEncoder(nn.Module):
    """A fixed map that says where each cell lies, whatever the image shows.

    name: short name, unique within an ensemble.
    grid: side of the map in cells.
    frequencies: F; the map has 4 F channels (sine and cosine, x and y).
    lowest, highest: half-waves across the image of the first and the last frequency, spaced geometrically. The mean of
        one under a mask is sin or cos at the centroid times a factor that falls with the mask's extent. With half a
        wave at most across the image the lowest is monotonic, so the centroid can be read from it; the factor of higher
        ones then gives the extent. Their own choice is not stated in the paper.

    Raises ValueError for fewer than one frequency.
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
        """Of the table, which every setting decides."""
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
