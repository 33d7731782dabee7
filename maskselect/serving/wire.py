"""The JSON of the API: what requests hold, and how candidates and answers are sent.

Masks travel as compressed COCO run lengths at the working size (h, w), so that a picture's candidates are sent once.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pycocotools import mask as coco
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskselect.ops import rle
from maskselect.predictor import Model, ReadPicture
from maskselect.serving.settings import Refusal, bad_input
from maskselect.structures.answer import Answer
from maskselect.structures.masks import MaskSet
from maskselect.structures.packed_masks import PackedMasks
from maskselect.structures.references import BoxRef, MaskRef, PointRef, Reference

MOST_CHARACTERS = 2000
MOST_REFERENCES = 8
MOST_MASKS = 500
_Score = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    """A record without unknown fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Rle(_Strict):
    """A mask as compressed COCO run lengths."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: Annotated[str, Field(max_length=2_000_000)]

    def decode(self, *sizes: tuple[int, int]) -> np.ndarray:
        """(H, W) bool. Raises Refusal if its size is not one of `sizes`, or the runs do not fill it."""
        size = (self.size[0], self.size[1])
        if size not in sizes:
            expected = " or ".join(str(list(one)) for one in dict.fromkeys(sizes))
            raise Refusal(400, "bad_input", f"a mask is of size {list(size)}; expected {expected}")
        try:
            return rle.decode({"size": list(size), "counts": self.counts})
        except ValueError as error:
            raise bad_input(error) from error


class ReferenceIn(_Strict):
    """A reference: exactly one of a candidate, a mask, a box and a point; box and point are in pixels of the image."""

    candidate: int | None = None
    mask: Rle | None = None
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    point: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    frame: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one(self) -> "ReferenceIn":
        if sum(value is not None for value in (self.candidate, self.mask, self.box, self.point)) != 1:
            raise ValueError("a reference needs exactly one of candidate, mask, box and point")
        return self

    def resolve(self, size: tuple[int, int], working: tuple[int, int], pool: MaskSet | None) -> Reference:
        """The reference at the size of the image.

        Args:
            size: (H, W) of the image.
            working: (h, w).
            pool: the candidates; None if there are none.

        Raises:
            Refusal: there is no such candidate, or the mask is unusable.
        """
        try:
            if self.box is not None:
                x0, y0, x1, y1 = self.box
                return BoxRef((x0, y0, x1, y1))
            if self.point is not None:
                return PointRef((self.point[0], self.point[1]))
            if self.mask is not None:
                return MaskRef(enlarged(self.mask.decode(size, working), size), "the reference mask")
            number = self.candidate if self.candidate is not None else -1
            if pool is None or not 0 <= number < len(pool):
                count = 0 if pool is None else len(pool)
                raise Refusal(400, "bad_input", f"candidate {number} does not exist; the picture has {count}")
            return MaskRef(enlarged(pool.masks[number].cpu().numpy(), size), f"candidate {number}")
        except ValueError as error:
            raise bad_input(error) from error


class PromptIn(_Strict):
    """A prompt with a reference for each `<mask-ref>`."""

    text: Annotated[str, Field(max_length=MOST_CHARACTERS)]
    references: Annotated[list[ReferenceIn], Field(max_length=MOST_REFERENCES)] = []


class AnswersIn(_Strict):
    """Prompts about one picture or clip."""

    prompts: Annotated[list[PromptIn], Field(min_length=1)]
    threshold: _Score | None = None


class ReferencesIn(_Strict):
    """References whose masks are asked for."""

    references: Annotated[list[ReferenceIn], Field(min_length=1, max_length=MOST_REFERENCES)]


class ChosenMask(_Strict):
    """A mask of a group: a candidate of the picture, or run lengths."""

    candidate: int | None = None
    mask: Rle | None = None
    score: _Score

    @model_validator(mode="after")
    def _one(self) -> "ChosenMask":
        if (self.candidate is None) == (self.mask is None):
            raise ValueError("a chosen mask needs a candidate or a mask")
        return self


class GroupIn(PromptIn):
    """A group as the page shows it: the masks that are chosen there, which a person may have changed."""

    threshold: _Score | None = None
    candidates: Annotated[int, Field(ge=0)] | None = None
    answer: str | None = None
    masks: Annotated[list[ChosenMask], Field(max_length=MOST_MASKS)]


class FilesIn(_Strict):
    """Groups that are to be written in a format."""

    format: Literal["json", "mask", "masks", "overlay", "svg", "coco", "coco-polygons", "labelme", "yolo"]
    groups: Annotated[list[GroupIn], Field(min_length=1)]


class ClipFilesIn(_Strict):
    """Answers about a clip, by their ids, that are to be written in a format."""

    format: Literal["json", "mask", "overlay"]
    answers: Annotated[list[str], Field(min_length=1, max_length=MOST_REFERENCES)]


T = TypeVar("T", bound=BaseModel)


def parse(kind: type[T], body: bytes) -> T:
    """The record of a request. Raises Refusal with the first fault in one sentence."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the request"
        raise Refusal(400, "bad_request", f"{place}: {first['msg']}") from error


def enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (h, w) bool at the size of the image, as groups have it."""
    return PackedMasks(mask[None], size)[0]


def duplicates_iou(model: Model) -> float | None:
    """Of two chosen candidates with a higher IoU a group has only the better one; None for no such rule."""
    value: float | None = getattr(model.system, "duplicates_iou", None)
    return value


def candidates_record(pool: MaskSet, most_iou: float | None) -> dict[str, Any]:
    """Candidates for a browser.

    Returns:
        size [h, w], `counts` (run lengths of each), `areas`, `quality` (scores of the proposer), and `duplicates`:
        pairs of candidates of which a group has only the better one.
    """
    masks = pool.masks.cpu().numpy()
    codes = rle.encode(masks)
    pairs: list[list[int]] = []
    if most_iou is not None and len(codes) > 1:
        flat = [{"size": code["size"], "counts": code["counts"].encode()} for code in codes]
        overlaps = np.triu(coco.iou(flat, flat, [0] * len(flat)), 1)
        pairs = np.argwhere(overlaps > most_iou).tolist()
    return {
        "size": list(pool.image_size),
        "counts": [code["counts"] for code in codes],
        "areas": [int(mask.sum()) for mask in masks],
        "quality": [round(float(score), 6) for score in pool.scores],
        "duplicates": pairs,
    }


def selected(record: dict[str, Any], scores: Sequence[float], threshold: float) -> list[int]:
    """The candidates of a group by falling score, as `masks.js` finds them when a user moves the threshold.

    Args:
        record: result of `candidates_record`.
        scores: of every candidate.
        threshold: lowest score.
    """
    pairs = {(a, b) for a, b in record["duplicates"]} | {(b, a) for a, b in record["duplicates"]}
    chosen: list[int] = []
    for number in sorted(range(len(scores)), key=lambda number: -scores[number]):
        enough = np.float32(scores[number]) >= np.float32(threshold) and record["areas"][number] > 0
        if enough and not any((number, other) in pairs for other in chosen):
            chosen.append(number)
    return chosen


def answer_record(
    answer: Answer,
    prompt: PromptIn,
    references: Sequence[Reference],
    kept: dict[str, Any],
    picture: ReadPicture,
    model: Model,
    threshold: float | None,
) -> dict[str, Any]:
    """An answer for a browser.

    Args:
        answer: the answer.
        prompt: its prompt.
        references: of the prompt.
        kept: the record of the picture.
        picture: the picture.
        model: the model.
        threshold: of the answer; None for none.

    Returns:
        prompt; `masks` by falling score, each with score and `candidate`, or `counts` if it is none; `scores` of all
        candidates or None; `own`: `candidates_record` if the candidates are the answer's own; text, failure, labels;
        `slides`: whether the browser can select for another threshold by itself; and `references`, at the size of the
        image: run lengths of masks, None for boxes and points.
    """
    pool, scores = answer.pool, answer.pool_scores
    assert isinstance(answer.masks, torch.Tensor)
    masks = answer.masks.cpu()
    numbers: list[int | None] = [None] * len(masks)
    if pool is not None and scores is not None:
        numbers = [_number(mask, float(score), pool, scores) for mask, score in zip(masks, answer.scores, strict=True)]
    records: list[dict[str, Any]] = []
    for mask, number, score in zip(masks, numbers, answer.scores, strict=True):
        place = {"counts": rle.encode(mask.numpy()[None])[0]["counts"]} if number is None else {"candidate": number}
        records.append({"score": float(score), **place})
    own = candidates_record(pool, duplicates_iou(model)) if pool is not None and pool is not picture.pool else None
    slides = threshold is not None and scores is not None and getattr(model.system, "selects_by_score", True)
    if slides and threshold is not None and scores is not None:
        slides = numbers == selected(own or kept["candidates"], scores.tolist(), threshold)
    return {
        "prompt": prompt.text,
        "masks": records,
        "scores": None if scores is None else [float(score) for score in scores],
        "own": own,
        "slides": slides,
        "text": answer.text,
        "failure": answer.failure,
        "labels": None if answer.labels is None else list(answer.labels),
        "references": [rle.encode(one.mask[None])[0] if isinstance(one, MaskRef) else None for one in references],
    }


def _number(mask: torch.Tensor, score: float, pool: MaskSet, scores: torch.Tensor) -> int | None:
    """The candidate that a mask of the group is; None if a refiner changed it."""
    for number in (scores == score).nonzero()[:, 0].tolist():
        if torch.equal(pool.masks[number].cpu(), mask):
            return int(number)
    return None
