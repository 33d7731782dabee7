"""Frozen encoders as the vision tower of a language model: the features of each cell of a grid (ours).

Shape letters: B images, T = G x G cells, E channels.
"""

import torch
from torch import Tensor, nn

from maskselect.encoders.ensemble import EncoderEnsemble, split


class GridTower(nn.Module):
    """Pools the maps of an ensemble under the cells of a square grid, as it pools them under masks.

    Args:
        encoders: the frozen ensemble.
        grid: G.

    Attributes:
        channels: E.
        tokens: T.
    """

    def __init__(self, encoders: EncoderEnsemble, grid: int = 16) -> None:
        super().__init__()
        self.encoders = encoders.requires_grad_(False)
        self.grid = grid
        self.channels, self.tokens = encoders.channels, grid * grid

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float in [0, 1] to (B, T, E), row by row."""
        cells = torch.eye(self.tokens, dtype=torch.bool, device=images.device).unflatten(1, (self.grid, self.grid))
        return torch.stack([self.encoders.pool(maps, cells) for maps in split(self.encoders.encode(images))])
