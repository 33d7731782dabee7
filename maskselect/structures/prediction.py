"""`MaskGroup`: the answer to one prompt."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskselect.ops import rle
from maskselect.structures.by_value import ByValue
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.masks import MaskSet
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
    candidates: how many candidates were scored; None where the system has none.
    threshold: score from which a mask is in the group; None where the system uses none.
    references: (R, H, W) bool, the reference masks that the prompt pointed to.
    candidate_scores: (N,) float32, the score of every candidate in the order of the pool; None where it is not known.
    pool: the candidates at the working size, where they were asked for.
    text: what the language model wrote; None where it writes nothing.
    failure: why the text could not be decoded to masks; None where it could, or there is none.
    """

    image: np.ndarray
    prompt: str
    masks: Expanded = Expanded()  # noqa: RUF009  a descriptor, which has to stand in the class; it is no default
    scores: np.ndarray  # type: ignore[misc]
    candidates: int | None  # type: ignore[misc]
    threshold: float | None  # type: ignore[misc]
    references: Expanded = Expanded()  # noqa: RUF009
    candidate_scores: np.ndarray | None = field(default=None, repr=False)
    text: str | None = None
    failure: str | None = None
    pool: MaskSet | None = field(default=None, repr=False)
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


@dataclass(frozen=True, eq=False, repr=False)
class ClipGroup:
    """The objects of a clip that answer a prompt, by falling score, at the size of its frames; false if there are none.

    `len` is the number of objects. Masks are kept packed; `frame` expands those of one frame, `masks` all of them.

    clip: the clip, whose frames are decoded again when they are asked for.
    scores: (M,) float32 in [0, 1], of each object the mean over the frames in which it is present.
    threshold: as of `MaskGroup`.
    references: (R, H, W) bool, and reference_frames: the frames on which they were given.
    text, failure: as of `MaskGroup`.
    """

    clip: Clip
    prompt: str
    objects: ClipMasks
    scores: np.ndarray
    threshold: float | None
    references: PackedMasks
    reference_frames: tuple[int, ...]
    text: str | None = None
    failure: str | None = None

    def __len__(self) -> int:
        return len(self.objects)

    def __repr__(self) -> str:
        return f"ClipGroup({self.prompt!r}: {len(self)} objects in {len(self.clip)} frames of {self.clip.size})"

    @property
    def no_target(self) -> bool:
        """True when nothing in the clip answers the prompt."""
        return len(self) == 0

    @property
    def masks(self) -> np.ndarray:
        """Masks of all objects in all frames: (M, T, H, W) bool. Memory grows with the clip; see `frame`."""
        return self.objects.dense().numpy()

    def frame(self, number: int) -> np.ndarray:
        """Masks of all objects in a frame: (M, H, W) bool, all False where an object is absent."""
        return self.objects.frame(number)

    def mask(self, number: int) -> np.ndarray:
        """Union of the group in a frame: (H, W) bool."""
        return np.asarray(self.frame(number).any(0))

    def to_dict(self) -> dict[str, Any]:
        """The clip's answer as JSON: frames, fps, size [H, W], prompt, and objects with one RLE or None a frame."""
        objects = []
        for number, score in enumerate(self.scores):
            masks = [self.objects.get(number, frame) for frame in range(len(self.clip))]
            runs = [None if mask is None or not mask.any() else rle.encode(mask[None])[0] for mask in masks]
            objects.append({"id": number + 1, "score": round(float(score), 6), "segmentations": runs})
        size = list(self.clip.size)
        return {"frames": len(self.clip), "fps": self.clip.fps, "size": size, "prompt": self.prompt, "objects": objects}


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a mask, right and bottom exclusive; zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
