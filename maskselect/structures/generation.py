"""`Generated`: the output of a language model by row."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from maskselect.structures.by_value import ByValue

LogitsProcessor = Callable[[list[list[int]], Tensor], Tensor]
"""Maps the generated token ids, one list per row, and next-token logits (B, V) to changed logits (B, V)."""


@dataclass(frozen=True, eq=False, repr=False)
class Generated(ByValue):
    """Greedy continuations of B rows.

    Attributes:
        ids: for each row the generated token ids, without the end token.
        states: for each row the hidden states (n, D) that predicted its n tokens.
        image_states: for each row what was asked of the image tokens after its prompt (T, E); None if nothing was.
    """

    ids: list[list[int]]
    states: list[Tensor]
    image_states: list[Tensor] | None = None
