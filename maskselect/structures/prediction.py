"""`MaskGroup`: the answer to one prompt."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskselect.ops import rle
from maskselect.structures.by_value import ByValue
from maskselect.structures.packed_masks import Expanded, PackedMasks


@dataclass(frozen=True, eq=False, repr=False)
class MaskGroup(ByValue):
    """The masks that answer a prompt, by falling score, at the image's own size. It may be empty, and is then false.

    Iterating gives one mask (H, W) after another; `len` is their number. Masks are kept packed: each look at `masks`,
    `mask` or `references` makes new arrays of the image's size, so keep what is needed twice in a variable. Changing
    them does not change the group. Two groups are equal when image, prompt, masks, scores and the rest are. Groups can
    be pickled.

    image: (H, W, 3) uint8; groups of one call share it.
    masks: (M, H, W) bool.  scores: (M,) float32 in [0, 1].
    candidates: how many candidates were scored.
    references: (R, H, W) bool, the reference masks that the prompt pointed to.
    candidate_scores: (N,) float32, the score of every candidate in the order of the pool; None where it is not known.
    """

    image: np.ndarray
    prompt: str
    masks: Expanded = Expanded()  # noqa: RUF009  a descriptor, which has to stand in the class; it is no default
    scores: np.ndarray  # type: ignore[misc]
    candidates: int  # type: ignore[misc]
    threshold: float  # type: ignore[misc]
    references: Expanded = Expanded()  # noqa: RUF009
    candidate_scores: np.ndarray | None = field(default=None, repr=False)
    drawer: Callable[["MaskGroup"], Image.Image] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.packed)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.packed)

    @property
    def packed(self) -> PackedMasks:
        """The masks as they are kept."""
        packed: PackedMasks = vars(self)["masks"]
        return packed

    @property
    def packed_references(self) -> PackedMasks:
        """The reference masks as they are kept."""
        packed: PackedMasks = vars(self)["references"]
        return packed

    @property
    def mask(self) -> np.ndarray:
        """Union of the group, (H, W) bool."""
        return self.packed.union()

    @property
    def boxes(self) -> np.ndarray:
        """Tight boxes (M, 4) int64: x0, y0, x1, y1 in pixels, right and bottom exclusive."""
        return np.array([_box(mask) for mask in self], np.int64).reshape(-1, 4)

    @property
    def no_target(self) -> bool:
        """True when nothing in the image answers the prompt."""
        return len(self) == 0

    def to_coco(self) -> list[dict[str, Any]]:
        """One record a mask: compressed RLE, score, bbox [x, y, w, h] in pixels, area in pixels."""
        records = []
        for mask, score in zip(self, self.scores, strict=True):
            x0, y0, x1, y1 = _box(mask)
            record = {
                "segmentation": rle.encode(mask[None])[0],
                "score": round(float(score), 6),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(np.count_nonzero(mask)),
            }
            records.append(record)
        return records

    def overlay(self, path: str | Path | None = None) -> Image.Image:
        """The image with the group tinted, scores, outlines, references in another colour and the prompt as caption.

        Writes it to `path` too when one is given. Raises RuntimeError when the group was made without a drawer.
        """
        if self.drawer is None:
            raise RuntimeError("this group has no drawer; groups from maskselect.load(...).select(...) have one")
        picture = self.drawer(self)
        if path is not None:
            picture.save(path)
        return picture


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a mask, right and bottom exclusive; zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
