"""`MaskGroup`: the answer to one prompt."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskselect.ops import rle


@dataclass(frozen=True)
class MaskGroup:
    """The masks that answer a prompt, by falling score, at the image's own size. It may be empty.

    masks: (M, H, W) bool.  scores: (M,) float32 in [0, 1].
    candidates: how many candidates were scored.
    references: (R, H, W) bool, the reference masks that the prompt pointed to.
    candidate_scores: (N,) float32, the score of every candidate in the order of the pool; None where it is not known.
    """

    image: np.ndarray
    prompt: str
    masks: np.ndarray
    scores: np.ndarray
    candidates: int
    threshold: float
    references: np.ndarray
    candidate_scores: np.ndarray | None = field(default=None, repr=False)
    drawer: Callable[["MaskGroup"], Image.Image] | None = field(default=None, repr=False, compare=False)

    @property
    def mask(self) -> np.ndarray:
        """Union of the group, (H, W) bool."""
        return np.asarray(self.masks.any(axis=0))

    @property
    def no_target(self) -> bool:
        """True when nothing in the image answers the prompt."""
        return len(self.masks) == 0

    def to_coco(self) -> list[dict[str, Any]]:
        """One record a mask: compressed RLE, score, bbox [x, y, w, h] in pixels, area in pixels."""
        records = []
        for mask, score, code in zip(self.masks, self.scores, rle.encode(self.masks), strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            x0, y0 = int(columns[0]), int(rows[0])
            bbox = [x0, y0, int(columns[-1]) + 1 - x0, int(rows[-1]) + 1 - y0]
            record = {"segmentation": code, "score": round(float(score), 6), "bbox": bbox, "area": int(mask.sum())}
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
