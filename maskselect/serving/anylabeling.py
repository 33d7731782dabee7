"""X-AnyLabeling's remote protocol, after docs/router.md and docs/user_guide.md of X-AnyLabeling-Server.

`GET /v1/models`, `GET /v1/models/{id}/info` and `POST /v1/predict`. Errors have status 200 and `success: false`, except
for a full queue.
"""

import base64
import binascii
import re
from typing import Any

from pydantic import BaseModel, Field

from maskselect.ops.outlines import joined, outlines
from maskselect.predictor import Model
from maskselect.serving.settings import Refusal
from maskselect.serving.wire import MOST_CHARACTERS, enlarged
from maskselect.structures.label_files import TOLERANCE
from maskselect.structures.references import BoxRef, PointRef, Reference
from maskselect.structures.sample import MASK_REF

OBJECT = "AUTOLABEL_OBJECT"
"""The label of an object that the user has to name."""


class Mark(BaseModel):
    """A box or point that the user drew; label 1 is inside, 0 outside."""

    type: str = "rectangle"
    label: int = 1
    data: list[float] = []


class Params(BaseModel):
    """The parameters that are used; a client may send others."""

    text_prompt: str = Field(default="", max_length=MOST_CHARACTERS)
    conf_threshold: float | None = Field(default=None, ge=0, le=1)
    marks: list[Mark] = []


class PredictIn(BaseModel):
    """Body of `POST /v1/predict`."""

    model: str
    image: str
    params: Params = Params()


def model_record(model: Model) -> dict[str, Any]:
    """Name, widgets and parameters of the model for X-AnyLabeling."""
    widgets: list[dict[str, Any]] = [{"name": "edit_text", "value": None}, {"name": "button_send", "value": None}]
    if model.prompter is not None:
        names = ("add_pos_rect", "button_run_rect", "button_clear", "button_finish_object")
        widgets += [{"name": name, "value": None} for name in names]
    if model.threshold is not None:
        widgets += [{"name": "input_conf", "value": None}, {"name": "edit_conf", "value": model.threshold}]
    widgets.append({"name": "toggle_preserve_existing_annotations", "value": False})
    return {
        "display_name": f"maskselect {model.name}",
        "widgets": widgets,
        "params": {"conf_threshold": model.threshold},
        "batch_processing_mode": "text_prompt",
    }


def image_bytes(text: str) -> bytes:
    """The file of an image in base64, with or without the head of a data URI. Raises Refusal."""
    head, comma, rest = text.partition(",")
    try:
        return base64.b64decode(rest if comma and head.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "invalid_image", "the image is not base64") from error


def references_of(marks: list[Mark]) -> list[Reference]:
    """The references of the marks that lie inside objects. Raises Refusal for other marks."""
    references: list[Reference] = []
    try:
        for mark in marks:
            if mark.label != 1:
                raise Refusal(400, "bad_input", "negative marks are not supported; expected marks on objects only")
            if mark.type == "rectangle":
                x0, y0, x1, y1 = mark.data
                references.append(BoxRef((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))))
            elif mark.type == "point":
                x, y = mark.data
                references.append(PointRef((x, y)))
            else:
                raise Refusal(400, "bad_input", f"mark of type {mark.type[:40]!r}; expected rectangle or point")
    except ValueError as error:
        raise Refusal(400, "bad_input", "a mark has other numbers than its type needs") from error
    return references


def prompts_of(text: str, references: list[Reference]) -> tuple[list[str], list[list[Reference]]]:
    """The prompts of a text, which commas and full stops separate, and the references of each, in order.

    Raises:
        Refusal: the numbers of `<mask-ref>` and of references differ.
    """
    texts = list(dict.fromkeys(part.strip() for part in re.split(r"[,.]", text) if part.strip()))
    counts = [part.count(MASK_REF) for part in texts]
    if sum(counts) != len(references):
        raise Refusal(
            400, "bad_input", f"the text has {sum(counts)} {MASK_REF} for {len(references)} mark(s); expected as many"
        )
    rest = iter(references)
    return texts, [[next(rest) for _ in range(count)] for count in counts]


def shapes_of(
    mask: Any, size: tuple[int, int], label: str, score: float | None, group: int | None
) -> list[dict[str, Any]]:
    """The parts of a mask (h, w) bool as closed polygons at the size of the image.

    Args:
        mask: the mask.
        size: (H, W).
        label: of the shapes.
        score: in [0, 1].
        group: number that joins the parts of one mask.
    """
    parts = [joined(part) for part in outlines(enlarged(mask, size), TOLERANCE)]
    return [
        {
            "label": label,
            "shape_type": "polygon",
            "points": [*part.astype(float).tolist(), part[0].astype(float).tolist()],
            "score": None if score is None else round(score, 6),
            "attributes": {},
            "description": None,
            "difficult": False,
            "direction": 0,
            "flags": None,
            "group_id": group if len(parts) > 1 else None,
            "kie_linking": [],
        }
        for part in parts
    ]
