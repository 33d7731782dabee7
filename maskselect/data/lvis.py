"""LVIS and EgoObjects: many categories, of which each image is annotated for a few.

**LVIS** (https://www.lvisdataset.org/dataset): v1 has about 100,000 training and 19,800 validation images of COCO 2017
with masks of about 1,203 categories, v0.5 about 57,000 and 5,000 with 1,230. Annotations CC BY 4.0, photographs under
their Flickr terms. On disk, under the root, its `annotations/`, `lvis/` or `coco/annotations/`:
`lvis_{version}_{split}.json`; the images in `coco/train2017` and `coco/val2017`, or without the `coco/`.
Quirks: v1 has no `file_name`, and v0.5 one of the year 2014 (`COCO_val2014_…`), so an image is found by the folder and
name in its `coco_url`; validation images are in both folders. Names are made readable: underscores become blanks, and
the sense in brackets is removed (`car_(automobile)`) unless two names would then be equal
(`mouse_(computer_equipment)`). An image is annotated only for the categories that it has and for those of
`neg_category_ids`, which it does not have. Instances of those in `not_exhaustive_category_ids` are incomplete, so that
a right answer may count as wrong.

**EgoObjects v1.0** (https://ai.meta.com/datasets/egoobjects-downloads; its repository has the MIT licence): 114,000
frames (79,000 train, 5,700 val, 29,500 test) of 368 categories. On disk, under the root, its `annotations/`, `data/` or
`ego_objects/`: `EgoObjectsV1_unified_{train,eval}.json`, `EgoObjectsV1_unified_metadata.json`; the images in `images/`.
**It has boxes only: a mask of this reader is a filled box**, not suited to score outlines. SAM's masks of some of its
frames are in LLM-Seg40K.
Quirks: val and test are in one file, separated by an image's `subset`; an image is found by the last part of its `url`;
an annotation without a category, or with one that is not in the metadata, is in the pool but in no question.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskselect.data.coco import CocoQuestions, both_folders
from maskselect.data.files import Images, find_one, read_json
from maskselect.data.index import Key, Record
from maskselect.data.questions import Question
from maskselect.data.values import key_of, names_of

_LVIS_PAGE = "get it from https://www.lvisdataset.org/dataset"
_EGO_PAGE = "get it from https://ai.meta.com/datasets/egoobjects-downloads"


class LvisDataset(CocoQuestions):
    """Samples of LVIS: one per image and category, whose targets are all instances.

    Args:
        root: see the top of the file.
        split: train or val.
        version: "v1" or "v0.5".
        no_target: also one no-target prompt per category that is annotated as absent.
        exhaustive: leave out categories of an image whose instances are incomplete.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        version: str = "v1",
        no_target: bool = False,
        exhaustive: bool = False,
    ) -> None:
        root, name = Path(root), f"lvis_{version}_{split}.json"
        places = ("", "annotations/", "lvis/", "lvis/annotations/", "coco/annotations/")
        file = find_one(root, [place + name for place in places], f"LVIS file of {split}", _LVIS_PAGE)
        tags = "c" + ("" if exhaustive else "p") + ("n" if no_target else "")
        super().__init__(file, Images(both_folders(root), _LVIS_PAGE), tags)

    def _readable(self) -> dict[Key, str]:
        return readable_names(super()._readable())

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        partial = {str(key) for key in self._listed(image, "not_exhaustive_category_ids")}
        questions = [
            Question("p" if question.key in partial else "c", question.key, question.text, question.targets)
            for question in super()._questions(image, annotations, pool)
        ]
        present = {question.key for question in questions}
        absent = [key for key in self._listed(image, "neg_category_ids") if str(key) not in present]
        return questions + [Question("n", str(key), self.names[key], ()) for key in absent]

    def _picture(self, image: Record) -> Path:
        return self.images.find(str(image.get("coco_url") or image.get("file_name") or "").rpartition("/")[2])

    def _listed(self, image: Record, field: str) -> list[Key]:
        """Categories of one of an image's lists, without those that have no name in the file."""
        listed = image.get(field) or []
        if not isinstance(listed, list):
            raise ValueError(f"{field} is {str(listed)[:40]!r}; expected a list of category ids")
        keys = [key_of(one) for one in listed if isinstance(one, int | float | str)]
        return [key for key in keys if key in self.names]


class EgoObjectsDataset(CocoQuestions):
    """Samples of EgoObjects: one per image and category. The masks are filled boxes.

    Splits: train, val or test; eval is val and test.
    """

    def __init__(self, root: str | Path, split: str = "val") -> None:
        root, part = Path(root), "train" if split == "train" else "eval"
        name = f"EgoObjectsV1_unified_{part}.json"
        places = ("", "annotations/", "data/", "ego_objects/", "ego_objects/annotations/", "EgoObjects/")
        file = find_one(root, [place + name for place in places], f"EgoObjects file of {split}", _EGO_PAGE)
        images = [
            base / name
            for base in (root, file.parent, file.parent.parent)
            for name in ("images", "EgoObjectsV1_images")
        ]
        subset = split if split in ("val", "test") else None
        super().__init__(file, Images(images, _EGO_PAGE), part=subset, names=_ego_names(file.parent))

    def _part(self, image: Record) -> str:
        return str(image.get("subset", ""))

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        places: dict[Key, list[int]] = {}
        for place, annotation in enumerate(annotations[:pool]):
            category = annotation.get("category_id")
            if isinstance(category, int | str) and category in self.names:
                places.setdefault(category, []).append(place)
        return [Question("c", str(key), self.names[key], tuple(targets)) for key, targets in places.items()]

    def _picture(self, image: Record) -> Path:
        return self.images.find(str(image.get("file_name") or image.get("url") or "").rpartition("/")[2])

    def _masks(self, annotations: list[Record], size: tuple[int, int]) -> Tensor:
        masks = torch.zeros(len(annotations), *size, dtype=torch.bool)
        for mask, annotation in zip(masks, annotations, strict=True):
            left, top, right, bottom = filled_box(annotation, size)
            mask[top:bottom, left:right] = True
        return masks


def readable_names(names: Mapping[Key, str]) -> dict[Key, str]:
    """LVIS' names with blanks, and without the sense in brackets unless two names would then be equal.

    >>> readable_names({1: "car_(automobile)", 2: "mouse_(animal)", 3: "mouse_(computer_equipment)"})
    {1: 'car', 2: 'mouse (animal)', 3: 'mouse (computer equipment)'}
    """
    short = {key: name.partition("_(")[0].replace("_", " ").strip() for key, name in names.items()}
    taken = Counter(short.values())
    return {key: short[key] if taken[short[key]] == 1 else name.replace("_", " ") for key, name in names.items()}


def filled_box(annotation: Record, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of an annotation as left, top, right, bottom in whole pixels inside the image; at least one pixel.

    Args:
        annotation: has `bbox`, [x, y, width, height].
        size: (H, W).

    Raises:
        ValueError: it is no box, or is outside the image; the message names the annotation.
    """
    name = f"annotation {annotation.get('id')!r} has the box {str(annotation.get('bbox'))[:60]}"
    try:
        box = np.asarray(annotation.get("bbox"), np.float64)
    except (TypeError, ValueError, OverflowError):
        box = np.zeros(0)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise ValueError(f"{name}; expected [x, y, w, h]")
    edges = np.array([size[1], size[0]])
    low = np.clip(np.round(box[:2]), 0, edges)
    high = np.clip(np.maximum(np.round(box[:2] + box[2:]), low + 1), 0, edges)
    if (low >= high).any():
        raise ValueError(f"{name}, which lies outside its image of {size[1]}x{size[0]}")
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _ego_names(folder: Path) -> dict[Key, str]:
    """Names of the detection categories from the metadata beside the annotations; empty without that file."""
    file = folder / "EgoObjectsV1_unified_metadata.json"
    if not file.is_file():
        return {}
    metadata = read_json(file)
    listed = metadata.get("cat_det_cats") or metadata.get("categories") if isinstance(metadata, dict) else None
    if not isinstance(listed, list) or not all(
        isinstance(one, dict) and isinstance(one.get("id"), int | str) for one in listed
    ):
        raise ValueError(f"{file} has no list cat_det_cats of categories with an id")
    return {key: name.replace("_", " ") for key, name in names_of(listed, f"{file}: category").items()}
