"""`PackedMasks`: masks in packed form, expanded on access."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from maskselect.ops.masks import resize_smooth


class PackedMasks:
    """M masks, one bit per pixel within their boxes. Each access returns a new array at `size`.

    Args:
        masks: (M, h, w) bool; they are copied.
        size: (H, W) of the returned masks, see `ops.masks.resize_smooth`; None for (h, w).

    Raises:
        ValueError: the array has another shape or dtype.
    """

    def __init__(self, masks: np.ndarray, size: tuple[int, int] | None = None) -> None:
        if masks.ndim != 3 or masks.dtype != np.bool_:
            raise ValueError(f"masks must be (M, H, W) bool, got {masks.shape} {masks.dtype}")
        self.stored: tuple[int, int] = masks.shape[1], masks.shape[2]
        self.size = self.stored if size is None else (int(size[0]), int(size[1]))
        self._parts = [_pack(mask) for mask in masks]

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: int) -> np.ndarray:
        """One mask: (H, W) bool."""
        y0, y1, x0, x1, bits = self._parts[number]
        mask = np.zeros(self.stored, bool)
        inside = np.unpackbits(bits, count=(y1 - y0) * (x1 - x0)).view(np.bool_)
        mask[y0:y1, x0:x1] = inside.reshape(y1 - y0, x1 - x0)
        return mask if self.size == self.stored else resize_smooth(mask, self.size)

    def __iter__(self) -> Iterator[np.ndarray]:
        """One mask at a time, to save memory."""
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, PackedMasks):
            return NotImplemented
        same = self.size == other.size and len(self) == len(other)
        return same and all(np.array_equal(a, b) for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash((self.size, len(self)))

    def __repr__(self) -> str:
        return f"bool {(len(self), *self.size)}"

    def at(self, size: tuple[int, int]) -> "PackedMasks":
        """The same masks, returned at another size (H, W); the packed bits are shared and never change."""
        other = PackedMasks(np.zeros((0, *self.stored), bool), size)
        other._parts = self._parts
        return other

    def dense(self) -> np.ndarray:
        """All masks: (M, H, W) bool."""
        out = np.zeros((len(self), *self.size), bool)
        for number, mask in enumerate(self):
            out[number] = mask
        return out

    def union(self) -> np.ndarray:
        """Pixels inside any mask: (H, W) bool."""
        out = np.zeros(self.size, bool)
        for mask in self:
            out |= mask
        return out


def _pack(mask: np.ndarray) -> tuple[int, int, int, int, np.ndarray]:
    """y0, y1, x0, x1 of the box around a mask, ends exclusive, and its bits in row-major order."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return 0, 0, 0, 0, np.zeros(0, np.uint8)
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return y0, y1, x0, x1, np.packbits(mask[y0:y1, x0:x1])


class Expanded:
    """A dataclass field of masks: set as an array (M, H, W) bool or `PackedMasks`, stored packed, read as an array."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, holder: Any, owner: type | None = None) -> np.ndarray:
        if holder is None:  # so that the dataclass field has no default
            raise AttributeError(self.name)
        packed: PackedMasks = vars(holder)[self.name]
        return packed.dense()

    def __set__(self, holder: Any, masks: np.ndarray | PackedMasks) -> None:
        vars(holder)[self.name] = masks if isinstance(masks, PackedMasks) else PackedMasks(masks)
