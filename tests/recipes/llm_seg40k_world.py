"""Tiny LVIS and EgoObjects folders, stand-ins for captioner and boxes, and a build over them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskselect.recipes.llm_seg40k import build as llm_seg40k
from maskselect.recipes.llm_seg40k.answers import (
    Rules,
)
from maskselect.recipes.llm_seg40k.build import Settings
from maskselect.recipes.llm_seg40k.language_models import ChatEndpoint
from maskselect.structures.masks import MaskSet
from tests.recipes.endpoint import Endpoint, Reply, Request

NAMES = ["cup", "mouse_(computer_equipment)", "book", "lamp", "knife", "chair", "bottle"]
SYNONYMS = {"cup": ["cup", "mug"]}
LVIS_COUNTS = {11: 2, 12: 3, 13: 5, 14: 6, 15: 7, 16: 1, 17: 4}
EGO_COUNTS = {"A": 3, "B": 2, "C": 4}
SIZE = (24, 40)


def square(place: int) -> list[float]:
    """A box of its own for each of an image's things."""
    return [1.0 + 5 * place, 2.0 + place, 4.0, 6.0]


def polygon(place: int) -> list[list[float]]:
    x, y, width, height = square(place)
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), value, np.uint8)).save(path)


def write_lvis(root: Path) -> None:
    """Categories 0, 1, … in every image; the first of them twice."""
    images, annotations = [], []
    for number, count in LVIS_COUNTS.items():
        address = f"http://images.cocodataset.org/train2017/{number:012}.jpg"
        images.append({"id": number, "coco_url": address, "height": SIZE[0], "width": SIZE[1]})
        picture(root / f"coco/train2017/{number:012}.jpg", number)
        for place, category in [(place, place) for place in range(count)] + [(7, 0)]:
            shape = {"segmentation": polygon(place % 7), "category_id": category + 1, "image_id": number}
            annotations.append({"id": len(annotations), **shape})
    categories = [
        {"id": place + 1, "name": name, "synonyms": SYNONYMS.get(name, [name])} for place, name in enumerate(NAMES)
    ]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (root / "lvis_v1_train.json").write_text(json.dumps(whole))


def write_ego(root: Path) -> None:
    images, annotations = [], []
    for name, count in EGO_COUNTS.items():
        images.append({"id": name, "url": f"http://x/{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
        picture(root / f"images/{name}.jpg", ord(name))
        for place in range(count):
            box = {"bbox": square(place), "category_id": 50 + place, "image_id": name}
            annotations.append({"id": len(annotations), **box})
    (root / "EgoObjectsV1_unified_train.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    categories = [
        {"id": 50 + place, "name": name} for place, name in enumerate(["cup", "remote_control", "towel", "phone"])
    ]
    (root / "EgoObjectsV1_unified_metadata.json").write_text(json.dumps({"cat_det_cats": categories}))


class Shade:
    """Says how bright a picture is, and counts how often it looked."""

    name = "shade"

    def __init__(self) -> None:
        self.looked = 0

    def caption(self, image: np.ndarray) -> str:
        self.looked += 1
        return f"A wall of {image.mean():.0f}."


class Inside:
    """The mask of a box is the box without its outermost pixels."""

    name = "inside"

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        masks = torch.zeros(len(boxes_xyxy), *image.shape[:2], dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes_xyxy.int().tolist(), strict=True):
            mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
        return MaskSet(masks, torch.ones(len(masks)), "inside")


def question(thing: str, number: int = 0) -> dict[str, str]:
    """One that passes for any thing: it holds no word that names one."""
    return {"question": f"What would somebody want for purpose {number} of today?", "answer": thing}


def well(request: Request, number: int) -> Reply:
    """One good question a thing, in a fence."""
    entries = [question(thing, place) for place, thing in enumerate(request.things)]
    return Reply(f"Sure!\n```json\n{json.dumps(entries)}\n```")


@dataclass
class World:
    """The folders of a build, and how to run it."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "out"

    def build(self, endpoint: Endpoint, output: Path | None = None, **more: Any) -> dict[str, Any]:
        model = ChatEndpoint(endpoint.url, "stand-in", pause=0.01, retries=2, timeout=600)
        settings = more.pop("settings", Settings(shares=(4, 2, 2), rules=Rules(most=4)))
        arguments = {"lvis_root": self.root / "lvis", "ego_root": self.root / "ego", "boxes": Inside(), "per_shard": 3}
        captioner = more.pop("captioner", None) or Shade()
        return llm_seg40k.build_llm_seg40k(
            output or self.output, captioner, model, settings=settings, **(arguments | more)
        )


def published(folder: Path) -> dict[str, bytes]:
    names = ("train.json", "validation.json", "test.json", "report.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def images_of(folder: Path) -> dict[str, Any]:
    return {
        k: v for name, data in published(folder).items() if name != "report.json" for k, v in json.loads(data).items()
    }


def rejected(report: dict[str, Any]) -> dict[str, int]:
    return {reason: number for reason, number in report["questions"]["rejected"].items() if number}
