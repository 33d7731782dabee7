"""`Clip`: frames on demand; `ClipMasks`: the masks of objects over frames, kept packed.

Shape letters: M objects, T frames, H W pixels of a frame.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from maskselect.structures.packed_masks import PackedMasks


@runtime_checkable
class Clip(Protocol):
    """A video whose frames are decoded on demand, so that memory does not grow with its length.

    Attributes:
        fps: frames per second.
        size: (H, W) of every frame.
    """

    fps: float
    size: tuple[int, int]

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8. Raises IndexError beyond the last frame, ValueError if it cannot be decoded."""
        ...


class ClipMasks:
    """Masks of M objects over T frames, one bit a pixel within the object's box; an object may be absent from a frame.

    Each mask has the score that it had in its frame.

    Args:
        frames: T.
        size: (h, w) of the masks that are added.
        shown: (H, W) at which masks are returned; None for (h, w).
    """

    def __init__(self, frames: int, size: tuple[int, int], shown: tuple[int, int] | None = None) -> None:
        self.frames, self.size, self.shown = frames, size, shown or size
        self._objects: list[dict[int, PackedMasks]] = []
        self._scores: list[dict[int, float]] = []

    def __len__(self) -> int:
        return len(self._objects)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClipMasks):
            return NotImplemented
        return (self.frames, self.shown) == (other.frames, other.shown) and self._objects == other._objects

    def __hash__(self) -> int:
        return hash((self.frames, self.shown, len(self)))

    def add(self) -> int:
        """Add an object without masks. Returns its number."""
        self._objects.append({})
        self._scores.append({})
        return len(self._objects) - 1

    def put(self, number: int, frame: int, mask: Tensor, score: float = 1.0) -> None:
        """Set the mask of an object in a frame, (h, w) bool, and its score in [0, 1]."""
        self._objects[number][frame] = PackedMasks(mask[None].cpu().numpy(), self.shown)
        self._scores[number][frame] = score

    def score(self, number: int, frame: int) -> float:
        """The score of an object's mask in a frame. Raises KeyError if the object is absent."""
        return self._scores[number][frame]

    def get(self, number: int, frame: int) -> np.ndarray | None:
        """The mask of an object in a frame, (H, W) bool; None if the object is absent."""
        held = self._objects[number].get(frame)
        return None if held is None else held[0]

    def frame(self, frame: int) -> np.ndarray:
        """Masks of all objects in a frame: (M, H, W) bool, all False where an object is absent."""
        masks = np.zeros((len(self), *self.shown), bool)
        for number in range(len(self)):
            if (mask := self.get(number, frame)) is not None:
                masks[number] = mask
        return masks

    def dense(self) -> Tensor:
        """All masks at once: (M, T, H, W) bool. Memory grows with the clip; `frame` gives one frame."""
        masks = torch.zeros(len(self), self.frames, *self.shown, dtype=torch.bool)
        for frame in range(self.frames):
            masks[:, frame] = torch.from_numpy(self.frame(frame))
        return masks

    def ordered(self, numbers: Iterable[int]) -> "ClipMasks":
        """The objects with these numbers, in this order."""
        out, numbers = ClipMasks(self.frames, self.size, self.shown), list(numbers)
        out._objects = [self._objects[number] for number in numbers]
        out._scores = [self._scores[number] for number in numbers]
        return out

    def shown_at(self, shown: tuple[int, int]) -> "ClipMasks":
        """The same masks, returned at another size (H, W)."""
        out = ClipMasks(self.frames, self.size, shown)
        out._objects = [{t: packed.at(shown) for t, packed in masks.items()} for masks in self._objects]
        out._scores = self._scores
        return out
