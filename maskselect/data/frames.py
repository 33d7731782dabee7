"""Masks of video frames, read one at a time, from index PNGs or from a file of run lengths."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskselect.data.images import open_picture
from maskselect.data.index import Index
from maskselect.ops import rle

VOID = 255
"""Index of DAVIS' void pixels."""


@dataclass(frozen=True)
class PngMasks:
    """Masks of objects by their index in PNGs, as in DAVIS and YouTube-VOS.

    Attributes:
        files: one per frame.
        indices: of the objects; a frame without an index does not show the object.
        size: (H, W).
    """

    files: tuple[Path, ...]
    indices: tuple[int, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W) bool. Raises FileNotFoundError without the file, ValueError if it is no index image of this size."""
        file = self.files[frame]
        values = np.array(open_picture(file, f"mask {file}"))  # of a palette image the indices
        if values.shape != self.size or values.dtype != np.uint8:
            raise ValueError(
                f"mask {file} is {list(values.shape)} {values.dtype}; expected indices of {list(self.size)}"
            )
        return np.isin(values, self.indices)


@dataclass
class RleMasks:
    """The union of annotations as run lengths, as in ReVOS and MeViS.

    Attributes:
        index: index of the file.
        keys: keys of the annotations.
        frames: number of frames.
        size: (H, W).
        field: field of a record with its list of one RLE per frame, null if the frame does not show it.
    """

    index: Index
    keys: tuple[str, ...]
    frames: int
    size: tuple[int, int]
    field: str
    _lists: list[Sequence[Any]] = dataclasses.field(default_factory=list, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lists": []}

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W) bool. Raises ValueError, with file, annotation and frame, if it cannot be read."""
        if not self._lists:
            self._lists = [self._listed(key) for key in self.keys]
        union = np.zeros(self.size, bool)
        for key, codes in zip(self.keys, self._lists, strict=True):
            if codes[frame] is not None:
                union |= self._decoded(codes[frame], key, frame)
        return union

    def _listed(self, key: str) -> Sequence[Any]:
        listed = self.index.get("mask", key).get(self.field)
        if not isinstance(listed, list) or len(listed) != self.frames:
            content = f"{len(listed)} masks" if isinstance(listed, list) else repr(str(listed)[:40])
            expected = f"expected one for each of {self.frames} frames"
            raise ValueError(f"annotation {key} in {self.index.source} has {content}; {expected}")
        return listed

    def _decoded(self, code: Any, key: str, frame: int) -> np.ndarray:
        name = f"annotation {key} in {self.index.source}, frame {frame}"
        try:
            mask = rle.decode(code, self.size)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{name}: {error}") from error
        if mask.shape != self.size:
            raise ValueError(f"{name}, is of size {list(mask.shape)}; expected {list(self.size)}")
        return mask
