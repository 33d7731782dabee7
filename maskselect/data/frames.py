"""Masks of video frames, read one at a time: out of index PNGs, or of a file of run lengths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskselect.data.files import refuse_pointer
from maskselect.data.index import Index
from maskselect.ops import rle

VOID = 255
"""Index of DAVIS' pixels that count nowhere."""


@dataclass(frozen=True)
class PngMasks:
    """Where a PNG holds one of some indices, DAVIS' and YouTube-VOS' way.

    files: one a frame.  indices: of the objects; one that a frame lacks is not to be seen there.
    """

    files: tuple[Path, ...]
    indices: tuple[int, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W) bool. Raises FileNotFoundError without the file, ValueError when it is no index image of this size."""
        file = self.files[frame]
        if not file.is_file():
            raise FileNotFoundError(f"mask {file} is not there")
        refuse_pointer(file, f"mask {file}")
        try:
            with Image.open(file) as picture:
                # A palette image is its indices; converting it would give colours.
                values = np.array(picture)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"mask {file} is damaged: {' '.join(str(error).split())}") from error
        if values.shape != self.size or values.dtype != np.uint8:
            raise ValueError(
                f"mask {file} is {list(values.shape)} {values.dtype}; expected indices of {list(self.size)}"
            )
        return np.isin(values, self.indices)


@dataclass
class RleMasks:
    """The union of some annotations' run lengths, ReVOS' and MeViS' way: for each of them a list with one RLE a frame,
    or null where it is not to be seen.

    index: of the file.  keys: of the annotations in it.  read: a record to its list.
    """

    index: Index
    keys: tuple[str, ...]
    frames: int
    size: tuple[int, int]
    read: Callable[[dict[str, Any]], Any]
    _lists: list[Sequence[Any]] = field(default_factory=list, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lists": []}

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W) bool. Raises ValueError, naming file, annotation and frame, when it cannot be read."""
        if not self._lists:
            self._lists = [self._listed(key) for key in self.keys]
        union = np.zeros(self.size, bool)
        for key, codes in zip(self.keys, self._lists, strict=True):
            if codes[frame] is not None:
                union |= self._decoded(codes[frame], key, frame)
        return union

    def _listed(self, key: str) -> Sequence[Any]:
        listed = self.read(self.index.get("mask", key))
        if not isinstance(listed, list) or len(listed) != self.frames:
            told = f"{len(listed)} masks" if isinstance(listed, list) else repr(str(listed)[:40])
            expected = f"expected one for each of {self.frames} frames"
            raise ValueError(f"annotation {key} in {self.index.source} has {told}; {expected}")
        return listed

    def _decoded(self, code: Any, key: str, frame: int) -> np.ndarray:
        try:
            found = rle.decode(code, self.size)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"annotation {key} in {self.index.source}, frame {frame}: {error}") from error
        if found.shape != self.size:
            sizes = f"is of size {list(found.shape)}; expected {list(self.size)}"
            raise ValueError(f"annotation {key} in {self.index.source}, frame {frame}, {sizes}")
        return found
