"""Bilinear samples of maps, and sine waves of positions: the pure parts of detection transformers.

Places are (x, y) relative to a map: (0, 0) is its top left corner, (1, 1) its bottom right corner, and the centre of
cell (i, j) of an h x w map is ((j + 0.5) / w, (i + 0.5) / h). Outside a map the samples are zero.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def sample_places(maps: Tensor, places: Tensor) -> Tensor:
    """Bilinear samples: maps (N, C, h, w) at places (N, P, K, 2) to (N, C, P, K)."""
    grid = (2 * places - 1).to(maps.dtype)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def weighted_samples(cells: Tensor, shape: tuple[int, int], places: Tensor, weights: Tensor) -> Tensor:
    """The core of deformable attention (Zhu et al. 2021, 2010.04159, Equation 2) on one map.

    Each head reads its own channels at K places. Maps of several levels are read one after the other and summed,
    because the samples of all levels of a large image take several GB.

    Args:
        cells: (B, h * w, D), row by row; the D channels are those of M heads.
        shape: (h, w).
        places: (B, Q, M, K, 2), relative to the map.
        weights: (B, Q, M, K).

    Returns:
        (B, Q, D).
    """
    heads = places.shape[2]
    maps = rearrange(cells, "b (h w) (m d) -> (b m) d h w", m=heads, h=shape[0])
    samples = sample_places(maps, rearrange(places, "b q m k xy -> (b m) q k xy"))
    total = (samples * rearrange(weights, "b q m k -> (b m) 1 q k")).sum(-1)
    return rearrange(total, "(b m) d q -> b q (m d)", m=heads)


def sine_waves(angle: Tensor, features: int, temperature: float) -> Tensor:
    """(...) to (..., features): sines at even and cosines at odd indices, one pair per frequency."""
    place = torch.arange(features, device=angle.device)
    frequency = temperature ** (2 * torch.div(place, 2, rounding_mode="floor") / features)
    angles = angle[..., None] / frequency
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1).flatten(-2)
