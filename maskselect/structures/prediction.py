"""`MaskGroup`: the answer to one prompt."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from maskselect.ops import rle
from maskselect.ops.atomic import atomic_file
from maskselect.ops.drawing import draw_overlay
from maskselect.ops.text import json_bytes
from maskselect.structures.by_value import ByValue, short
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.label_files import (
    TOLERANCE,
    Labelled,
    coco_polygons,
    labelme_record,
    svg_text,
    yolo_lines,
)
from maskselect.structures.masks import MaskSet
from maskselect.structures.packed_masks import Expanded, PackedMasks
from maskselect.structures.sample import MASK_REF

if TYPE_CHECKING:
    from supervision import Detections


@dataclass(frozen=True, eq=False, repr=False)
class MaskGroup(ByValue):
    """The masks that answer a prompt, by falling score, at the image's own size.

    An empty group is false. `len` is the number of masks; iteration gives one mask (H, W) after another. Two groups are
    equal if all their values are. Groups can be pickled, and notebooks show them as a picture.

    Masks are kept packed: each access to `masks`, `mask` or `references` makes new arrays of the image's size, so keep
    in a variable what is needed twice. A change to them does not change the group.

    Attributes:
        image: (H, W, 3) uint8. Groups of one call share it.
        prompt: the text.
        masks: (M, H, W) bool.
        scores: (M,) float32 in [0, 1].
        candidates: number of scored candidates; None if the system has none.
        threshold: selection threshold, in [0, 1]; None if the system uses none.
        references: (R, H, W) bool, the reference masks of the prompt.
        candidate_scores: (N,) float32, the score of every candidate in the order of the pool; None if unknown.
        pool: the candidates at the working size, if the call requested them.
        text: the text of the language model; None if it writes none.
        failure: why the text could not be decoded to masks; None if it could, or there is none.
        repairs: number of places where the decoder repaired the text.
        cut: the text ends at the maximum length of an answer.
        labels: the class of each mask, for a prompt that lists classes; else None.
        refiner: name of the refiner of the masks; None if there is none.
        parts: for a named model of public weights its parts, as `hf://org/name@commit`.
    """

    image: np.ndarray
    prompt: str
    masks: Expanded = Expanded()  # noqa: RUF009  a descriptor, not a default
    scores: np.ndarray  # type: ignore[misc]
    candidates: int | None  # type: ignore[misc]
    threshold: float | None  # type: ignore[misc]
    references: Expanded = Expanded()  # noqa: RUF009
    candidate_scores: np.ndarray | None = field(default=None, repr=False)
    text: str | None = None
    failure: str | None = None
    repairs: int = 0
    cut: bool = False
    labels: tuple[str, ...] | None = None
    pool: MaskSet | None = field(default=None, repr=False)
    refiner: str | None = None
    parts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.packed)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.packed)

    def __repr__(self) -> str:
        scores = short([round(float(score), 2) for score in self.scores])
        return f"MaskGroup({self.prompt!r}, {len(self)} masks of {self.size}, scores {scores})"

    def _repr_png_(self) -> bytes:
        """The picture in notebooks."""
        return _png(self.overlay())

    @property
    def packed(self) -> PackedMasks:
        """The masks in packed form."""
        packed: PackedMasks = vars(self)["masks"]
        return packed

    @property
    def packed_references(self) -> PackedMasks:
        """The reference masks in packed form."""
        packed: PackedMasks = vars(self)["references"]
        return packed

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def mask(self) -> np.ndarray:
        """Union of the group, (H, W) bool."""
        return self.packed.union()

    @property
    def boxes(self) -> np.ndarray:
        """Tight boxes (M, 4) int64: x0, y0, x1, y1 in pixels, right and bottom exclusive."""
        return np.array([_box(mask) for mask in self], np.int64).reshape(-1, 4)

    @property
    def areas(self) -> np.ndarray:
        """Number of pixels of each mask, (M,) int64."""
        return np.array([np.count_nonzero(mask) for mask in self], np.int64)

    @property
    def polygons(self) -> list[list[np.ndarray]]:
        """Outlines of each mask: a list of polygons a mask, each (P, 2) int32 x, y in pixels.

        Corners are centres of pixels. A mask has one polygon for each connected part and one for each hole; the outline
        of a hole is within another polygon of the mask. Filled together by the even-odd rule, as by `cv2.fillPoly`,
        they are exactly the mask; filled separately, they close the holes. A thin part may have only one or two points.
        """
        return [_polygons(mask) for mask in self]

    @property
    def no_target(self) -> bool:
        """True if nothing in the image answers the prompt."""
        return len(self) == 0

    @property
    def caption(self) -> str:
        """The prompt with `<ref1>`, `<ref2>`, … for its references, as the overlay shows it."""
        first, *rest = self.prompt.split(MASK_REF)
        return first + "".join(f"<ref{number}>{part}" for number, part in enumerate(rest, start=1))

    @property
    def names(self) -> tuple[str, ...]:
        """The class of each mask: its label or, for a prompt that lists no classes, the caption."""
        return self.labels if self.labels is not None else (self.caption,) * len(self)

    @property
    def categories(self) -> tuple[str, ...]:
        """The classes of the group, each once: those of `labels`, or the caption, even if no mask has it."""
        return tuple(dict.fromkeys(self.names if self.labels is not None else (self.caption,)))

    def labelled(self) -> Iterator[Labelled]:
        """Mask, name and score of one mask after another."""
        return zip(self, self.names, map(float, self.scores), strict=True)

    def to_coco(
        self, image_id: int | None = None, category_id: int | None = None, polygons: bool = False
    ) -> list[dict[str, Any]]:
        """The masks as COCO results.

        Args:
            image_id: added to each record; `pycocotools.coco.COCO.loadRes` needs it.
            category_id: the same.
            polygons: polygons in place of run lengths, for programs that read no others. pycocotools draws them as
                exactly the masks; holes are joined to the outline by cuts of no width.

        Returns:
            One record per mask: `segmentation` (compressed RLE), `score`, `bbox` [x, y, w, h] and `area` in pixels.
        """
        ids = {"image_id": image_id, "category_id": category_id}
        present = {name: value for name, value in ids.items() if value is not None}
        records = []
        for mask, score in zip(self, self.scores, strict=True):
            x0, y0, x1, y1 = _box(mask)
            record = {
                "segmentation": coco_polygons(mask) if polygons else rle.encode(mask[None])[0],
                "score": round(float(score), 6),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(np.count_nonzero(mask)),
            }
            records.append(present | record)
        return records

    def to_supervision(self, compact: bool = False) -> "Detections":
        """The masks as `supervision.Detections`; the class name of each is its label, or the prompt.

        Args:
            compact: run lengths of the masks (`supervision.CompactMask`) in place of an array, to save memory.

        Raises:
            ModuleNotFoundError: the package supervision is not installed.
            ImportError: the installed version has no compact masks.
        """
        try:
            import supervision  # noqa: PLC0415  optional
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "supervision is not installed; get it with: pip install 'maskselect[supervision]'", name=error.name
            ) from error
        if compact and not hasattr(supervision, "CompactMask"):
            raise ImportError(f"supervision {supervision.__version__} has no CompactMask; expected a newer version")
        masks = self.masks if not compact else None
        if masks is None:
            codes = [code for mask in self for code in rle.encode(mask[None])]
            boxes = (self.boxes - [0, 0, 1, 1]).astype(np.float32)  # its last pixels are inclusive
            masks = supervision.CompactMask.from_coco_rle(codes, boxes, self.size)
        numbers = {name: number for number, name in enumerate(self.categories)}
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32),
            mask=masks,
            confidence=self.scores.copy(),
            class_id=np.array([numbers[name] for name in self.names], np.int64),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def to_labelme(self, image: str | None = None, tolerance: float = TOLERANCE) -> dict[str, Any]:
        """The group as the content of a label file of labelme; the label of each mask is its class, or the prompt.

        Args:
            image: path of the image, relative to the label file.
            tolerance: greatest distance between the edge of a mask and its polygon, in pixels; 0 is exact, with a
                corner at every step.
        """
        return labelme_record(self.labelled(), self.size, image, tolerance)

    def to_yolo(self, classes: Sequence[str] | None = None) -> str:
        """The group as a YOLO segmentation label: a line for each mask, its class and its outline in fractions.

        Args:
            classes: names of all classes, whose places are the numbers; None for `categories`.

        Raises:
            ValueError: a mask has another class.
        """
        return yolo_lines(self.labelled(), self.categories if classes is None else classes, self.size)

    def to_svg(self) -> str:
        """The group as an SVG of the image's size without the image: a path for each mask, with open holes."""
        return svg_text(self.labelled(), self.size, self.caption)

    def to_json(self, image: str | None = None, model: str | None = None) -> dict[str, Any]:
        """The group in the form of `predict`.

        Args:
            image: file of the image.
            model: name of the model.

        Returns:
            image, size [H, W], prompt, model, threshold, no_target, candidates, masks (see `to_coco`), and text,
            failure, repairs, cut, refiner and parts if there are any. Each mask has its `label` if the masks have
            classes.
        """
        optional: dict[str, Any] = {"text": self.text, "failure": self.failure, "repairs": self.repairs or None}
        optional |= {"cut": self.cut or None, "refiner": self.refiner, "parts": list(self.parts) or None}
        masks = self.to_coco()
        if self.labels is not None:
            masks = [record | {"label": label} for record, label in zip(masks, self.labels, strict=True)]
        return {
            "image": image,
            "size": list(self.size),
            "prompt": self.prompt,
            "model": model,
            "threshold": self.threshold,
            "no_target": self.no_target,
            "candidates": self.candidates,
            **{name: value for name, value in optional.items() if value is not None},
            "masks": masks,
        }

    def save(self, path: str | Path) -> None:
        """Write the group to a file.

        Args:
            path: ends in `.png` for the union of the masks (8-bit, 0 or 255), in `.json` for `to_json`, or in `.svg`
                for `to_svg`. For a picture of the image with the masks see `overlay`.

        Raises:
            ValueError: the path has another suffix.
        """
        suffix = Path(path).suffix.lower()
        contents = {
            ".png": self.mask_png,
            ".json": lambda: json_bytes(self.to_json()),
            ".svg": lambda: self.to_svg().encode(),
        }
        if suffix not in contents:
            raise ValueError(f"{path} ends in {suffix!r}; expected .png for the mask, .json or .svg for the group")
        with atomic_file(Path(path)) as part:
            part.write_bytes(contents[suffix]())

    def mask_png(self) -> bytes:
        """The union as a PNG file: 8-bit, 0 or 255."""
        union = self.mask.view(np.uint8)
        union *= 255
        return _png(Image.fromarray(union))

    def overlay(self, path: str | Path | None = None) -> Image.Image:
        """The image with tinted masks and their scores, outlined references, and the prompt below.

        Args:
            path: also write the picture there, in the format of the suffix.
        """
        labels = [f"{score:.2f}" for score in self.scores]
        if self.labels is not None:
            labels = [f"{name} {score}" for name, score in zip(self.labels, labels, strict=True)]
        picture = draw_overlay(self.image, self, labels, self.packed_references, self.caption, self._outcome())
        if path is not None:
            with atomic_file(Path(path)) as part:
                picture.save(part, format=Image.registered_extensions().get(Path(path).suffix.lower(), "PNG"))
        return picture

    def _outcome(self) -> str:
        outcome = "nothing in the image answers this" if self.no_target else f"{len(self)} mask(s)"
        if self.candidates is None or self.threshold is None:
            return self.failure or outcome
        pool = f"{self.candidates} candidates, threshold {self.threshold:.2f}"
        return f"{outcome} ({pool})" if self.no_target else f"{len(self)} of {pool}"


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def _polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of the parts and holes of a mask, each (P, 2) int32."""
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [outline[:, 0] for outline in outlines]


@dataclass(frozen=True, eq=False, repr=False)
class ClipGroup(ByValue):
    """The objects of a clip that answer a prompt, by falling score, at the size of its frames; false if there are none.

    `len` is the number of objects. Masks are kept packed; `frame` expands those of one frame, `masks` all of them.

    Attributes:
        clip: the clip, whose frames are decoded on demand. It is not compared.
        prompt: the text.
        objects: the masks.
        scores: (M,) float32 in [0, 1], for each object the mean over the frames in which it is present.
        references: (R, H, W) bool.
        reference_frames: the frame of each reference.
        threshold, text, failure, repairs, cut, refiner, parts: as in `MaskGroup`.
    """

    clip: Clip = field(compare=False)
    prompt: str
    objects: ClipMasks
    scores: np.ndarray
    threshold: float | None
    references: PackedMasks
    reference_frames: tuple[int, ...]
    text: str | None = None
    failure: str | None = None
    repairs: int = 0
    cut: bool = False
    refiner: str | None = None
    parts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.objects)

    def __repr__(self) -> str:
        return f"ClipGroup({self.prompt!r}: {len(self)} objects in {len(self.clip)} frames of {self.clip.size})"

    @property
    def no_target(self) -> bool:
        """True if nothing in the clip answers the prompt."""
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
        """The group for JSON: frames, fps, size [H, W], prompt, and objects with one RLE or None per frame."""
        objects = []
        for number, score in enumerate(self.scores):
            masks = (self.objects.get(number, frame) for frame in range(len(self.clip)))  # one at a time
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
