"""`Reader`: the sequence protocol that the readers of annotations share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

Item_co = TypeVar("Item_co", covariant=True)


class Reader(ABC, Generic[Item_co]):
    """Items of one split, decoded on access; those of an image or video follow each other.

    The constructor of a reader raises FileNotFoundError if the layout or the split does not exist, and ValueError for a
    damaged file. A subclass sets `_rows`, one entry for each item.
    """

    _rows: Sequence[Any] | np.ndarray

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item_co]:
        return (self[number] for number in range(len(self)))

    @abstractmethod
    def __getitem__(self, number: int) -> Item_co:
        """Decode one item.

        Raises:
            ValueError: its record is damaged or contradicts itself; the message names file and record.
            FileNotFoundError: its image or frame does not exist.
        """
