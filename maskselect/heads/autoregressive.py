"""The autoregressive baseline of RAS, Table 7: name the selected masks one after another.

At each step the hidden state is projected to an embedding; the nearest candidate token is taken and read back. One more
learnable embedding means "no more".

Shape letters: N candidates, S steps, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NextMaskHead(nn.Module):
    """Hidden state to the nearest candidate, or the end.

    Args:
        width: D of the language model.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.end = nn.Parameter(torch.randn(width, dtype=torch.float32) * 0.02)
        self.log_scale = nn.Parameter(torch.tensor(2.3, dtype=torch.float32))

    def forward(self, hidden: Tensor, candidates: Tensor) -> Tensor:
        """Similarity of predicted embeddings and mask tokens: (..., S, D), (..., N, D) to logits (..., S, N + 1).

        The last column is the end. Cosine similarity times a learned scale.
        """
        end = self.end.expand(*candidates.shape[:-2], 1, -1)
        keys = F.normalize(torch.cat([candidates, end], dim=-2), dim=-1)
        queries = F.normalize(self.layers(hidden), dim=-1)
        return self.log_scale.exp() * queries @ keys.transpose(-1, -2)
