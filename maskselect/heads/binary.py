"""The binary selection head of RAS: whether a candidate is in the group."""

from typing import cast

from torch import Tensor, nn


class BinaryHead(nn.Module):
    """Two-layer MLP on a candidate's hidden state (RAS, section 3.3).

    Args:
        width: D of the language model.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to logits (...)."""
        return cast(Tensor, self.layers(hidden))[..., 0]
