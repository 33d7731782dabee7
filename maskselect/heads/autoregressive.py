"""The autoregressive baseline of RAS, Table 7: predicts the selected masks one after another.

At each step the hidden state is projected to an embedding. The nearest candidate token is selected and is the next
input. An additional learnable embedding ends the group.

Shape letters: N candidates, S steps, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NextMaskHead(nn.Module):
    """Compares a hidden state with all candidates and the end.

    Args:
        width: D of the language model.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.end = nn.Parameter(torch.randn(width, dtype=torch.float32) * 0.02)
        self.log_scale = nn.Parameter(torch.tensor(2.3, dtype=torch.float32))

    def forward(self, hidden: Tensor, candidates: Tensor) -> Tensor:
        """Hidden states (..., S, D) and mask tokens (..., N, D) to logits (..., S, N + 1); the last column is the end.

        A logit is a cosine similarity times a learned scale.
        """
        end = self.end.expand(*candidates.shape[:-2], 1, -1)
        keys = F.normalize(torch.cat([candidates, end], dim=-2), dim=-1)
        queries = F.normalize(self.layers(hidden), dim=-1)
        return self.log_scale.exp() * queries @ keys.transpose(-1, -2)
