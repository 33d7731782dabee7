"""Chooses candidates by LLM-Seg's two heads (arXiv 2404.08767, Table 3).

Shape letters: P prompts, N candidates.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

Strategy = Literal["iop", "top_iou", "iop_or_top_iou", "iop_of_top_iou"]
"""`iop`: all candidates with an IoP above the threshold (the published default). `top_iou`: the candidate most similar
to `[SEG]`. `iop_or_top_iou`: the union of both. `iop_of_top_iou`: those above the threshold among the `TOP` candidates
most similar to `[SEG]`."""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
TOP = 5


def choose(similarity: Tensor, iop: Tensor, strategy: Strategy, threshold: float = 0.5) -> Tensor:
    """The chosen candidates of each prompt, (P, N) bool.

    Args:
        similarity: (P, N), of the IoU head.
        iop: (P, N) in [0, 1].
        strategy: one of STRATEGIES.
        threshold: IoP must be greater.

    Raises:
        ValueError: the strategy is unknown.
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
    """(P, N) bool, True for the `count` greatest values of each row, or for all if there are fewer."""
    places = similarity.topk(min(count, similarity.shape[-1]), dim=-1).indices
    return torch.zeros_like(similarity, dtype=torch.bool).scatter(-1, places, True)
