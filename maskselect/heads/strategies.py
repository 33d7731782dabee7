"""Which candidates are in the group, from LLM-Seg's two heads (arXiv 2404.08767, Table 3).

Shape letters: P prompts, N candidates.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

Strategy = Literal["iop", "top_iou", "iop_or_top_iou", "iop_of_top_iou"]
"""`iop`: every candidate whose IoP is above the threshold (the published default). `top_iou`: the one most like
`[SEG]`, whatever the threshold. `iop_or_top_iou`: both together. `iop_of_top_iou`: of the `TOP` most like `[SEG]`,
those above the threshold."""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
TOP = 5


def choose(similarity: Tensor, iop: Tensor, strategy: Strategy, threshold: float = 0.5) -> Tensor:
    """The group of each prompt: (P, N) bool. It may be empty where the strategy asks for IoP.

    similarity: (P, N), the IoU head's.  iop: (P, N) in [0, 1].  threshold: IoP must be above it.
    Raises ValueError for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r} is unknown; expected one of {', '.join(STRATEGIES)}")
    pure = iop > threshold
    if strategy == "iop" or similarity.shape[-1] == 0:
        return pure
    if strategy == "iop_of_top_iou":
        return pure & _among_top(similarity, TOP)
    best = _among_top(similarity, 1)
    return best if strategy == "top_iou" else best | pure


def _among_top(similarity: Tensor, count: int) -> Tensor:
    """(P, N) bool, True for the `count` highest of each row, or for all of fewer."""
    places = similarity.topk(min(count, similarity.shape[-1]), dim=-1).indices
    return torch.zeros_like(similarity, dtype=torch.bool).scatter(-1, places, True)
