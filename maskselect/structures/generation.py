"""`Generated`: what a language model wrote, row by row."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from maskselect.structures.by_value import ByValue

LogitsProcessor = Callable[[list[list[int]], Tensor], Tensor]
"""Token ids written so far, one list a row, and next-token logits (B, V), to the logits that are chosen from (B, V)."""


@dataclass(frozen=True, eq=False, repr=False)
class Generated(ByValue):
    """Greedy continuations of B rows.

    ids: for each row the written token ids, without the end token.
    states: for each row the hidden states (n, D) that predicted its n tokens.
    """

    ids: list[list[int]]
    states: list[Tensor]
