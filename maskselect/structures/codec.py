"""`Codec`: masks and labels to text and back, and `Grammar`: which symbols may follow in such a text.

Shape letters: M masks, H W pixels, S symbols.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from maskselect.structures.by_value import ByValue


@dataclass(frozen=True, eq=False, repr=False)
class Decoded(ByValue):
    """What a text says. A text that cannot be decoded has a failure; a text that names no target has M = 0 and none.

    masks: (M, H, W) bool; M = 0 after a failure.
    labels: the label of each mask.
    repairs: number of places where the decoder discarded, added or replaced something.
    unknown: words that name none of the expected labels, in order of appearance.
    failure: why the text cannot be decoded, one sentence; None if it can.
    """

    masks: Tensor
    labels: tuple[str, ...]
    repairs: int = 0
    unknown: tuple[str, ...] = ()
    failure: str | None = None


@runtime_checkable
class Grammar(Protocol):
    """A deterministic automaton over symbols. The text is the concatenation of its symbols.

    symbols: the text of each symbol; none is empty, and of those that are allowed in one state no two are equal.
    start: the state before the first symbol. States are hashable.
    """

    symbols: tuple[str, ...]
    start: Any

    def allowed(self, state: Any) -> np.ndarray:
        """Which symbols may come next: (S,) bool. From every allowed symbol the text can be completed."""
        ...

    def advance(self, state: Any, symbol: int) -> Any:
        """The state after a symbol.

        Raises:
            ValueError: for a symbol that is not allowed.
        """
        ...

    def complete(self, state: Any) -> bool:
        """Whether the text may end here."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Writes masks as text and reads them back."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens that a language model has to add to its vocabulary, without duplicates."""
        ...

    @property
    def numbers_masks(self) -> bool:
        """Whether masks without labels are numbered `roi0`, `roi1`, …."""
        ...

    def encode(self, masks: Tensor, labels: Sequence[str] | None = None) -> str:
        """(M, H, W) bool masks and their labels to text. M = 0 is a no-target prompt; no labels number the masks.

        Raises:
            ValueError: for a label that the text cannot hold, or for no labels where the codec needs them.
        """
        ...

    def decode(self, text: str, size: tuple[int, int], labels: Sequence[str] | None = None) -> Decoded:
        """Text to masks. Never raises for any text.

        Args:
            text: what a language model wrote; prose around the masks is ignored.
            size: (H, W) of the masks.
            labels: the labels that may occur; None if any may.
        """
        ...

    def foreground(self, text: str, labels: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Where a text writes the foreground of its masks.

        Args:
            text: as given to `decode`.
            labels: `Decoded.labels`.

        Returns:
            For each label start and end, in characters, of the runs of its mask. All of the text where these cannot be
            told apart.
        """
        ...

    def openings(self, text: str, labels: Sequence[str]) -> list[int]:
        """Where the text of each mask begins, in characters; arguments as for `foreground`."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid of cells."""
        ...

    def next_cells(self, text: str, ends: Sequence[int]) -> list[tuple[int, int]]:
        """Where on the grid a text goes on, which the part before an end decides alone.

        Args:
            text: what was written, or shall be.
            ends: rising numbers of characters.

        Returns:
            For each end row and column of the cell that is written next; column -1 after the last cell of a row, and
            row -1 where no cell is next.
        """
        ...

    def grammar(self, labels: Sequence[str] | None = None) -> Grammar:
        """The automaton of the texts that `encode` writes for these labels."""
        ...
