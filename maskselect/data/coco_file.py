"""A COCO annotation file: images, annotations and categories by id; masks are decoded on demand.

The base of most data sets here: `instances.json` of COCO, RefCOCO and gRefCOCO, LVIS, PACO, EntitySeg.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.data.images import image_size
from maskselect.data.index import Index, Key, Record, Section, open_index
from maskselect.data.json_text import kind_at
from maskselect.data.values import flag_of, key_of, names_of, same_key, whole
from maskselect.ops import rle

SECTIONS = {
    "image": Section("images"),
    "annotation": Section("annotations", group="image_id", nameless=True, in_group=True),
    "category": Section("categories"),
}


class CocoFile:
    """Records of a file through its index.

    Args:
        path: the file.
        more: further sections, available through `index`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is damaged, or has no images.
    """

    def __init__(self, path: Path, more: Mapping[str, Section] | None = None) -> None:
        self.path = path
        self.index: Index = open_index(path, SECTIONS | dict(more or {}))
        self.need("image")

    def need(self, section: str) -> None:
        """Raise ValueError if a section has no record; the message has what the file has instead."""
        if self.index.count(section) == 0:
            name = f"{section}s"
            kind = kind_at(self.path, name)
            raise ValueError(
                f"{self.path} has no {name}: that list is {'empty' if kind == 'a list' else kind}; "
                "expected a COCO file with lists of images, annotations and categories"
            )

    def image(self, key: Key) -> Record:
        """The record of an image. Raises ValueError if there is none."""
        return self.index.get("image", key)

    def annotations(self, image: Key) -> list[Record]:
        """All annotations of an image, with crowds. Ids, categories and `iscrowd` are normalised by `data.values`.

        The id of an annotation without one is its place.

        Raises:
            ValueError: an `iscrowd` is no flag.
        """
        records = self.index.of_group("annotation", image)
        try:
            return [_normalised(record, f"{place} of image {image}") for place, record in enumerate(records)]
        except ValueError as error:
            raise ValueError(f"{self.path}, {error}") from error

    def category_names(self) -> dict[Key, str]:
        """Names by id. Raises ValueError for a category without a name, and like `refuse_same_names`."""
        try:
            names = names_of(self.index.all("category"), "category")
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        self.refuse_same_names(names)
        return names

    def refuse_same_names(self, names: Mapping[Key, str]) -> None:
        """Raise ValueError if two categories with annotations have the same name.

        They would give one prompt twice, each time with a part of the targets. A category without annotations may share
        its name, as in exports of Roboflow.
        """
        prompts = {key: " ".join(name.lower().split()) for key, name in names.items()}
        if len(set(prompts.values())) == len(prompts):
            return
        values = [record.get("category_id") for record in self.index.all("annotation")]
        used = {str(value if whole(value) is None else whole(value)) for value in values}
        first: dict[str, int] = {}
        for place, (key, name) in enumerate(prompts.items()):
            if str(key) in used and first.setdefault(name, place) != place:
                raise same_key(self.path, "category", first[name], place, "name", names[key])


def _normalised(annotation: Record, name: str) -> Record:
    key = annotation.get("id")
    record = annotation | {"id": name if key is None else key_of(key)}
    try:
        record["iscrowd"] = flag_of(annotation.get("iscrowd"), "iscrowd")
    except ValueError as error:
        raise ValueError(f"annotation {record['id']!r}: {error}") from error
    if (number := whole(annotation.get("category_id"))) is not None:
        record["category_id"] = number
    return record


def size_of(image: Record, picture: Path | None = None) -> tuple[int, int]:
    """(H, W) of an image record, or of its file `picture` if the record has no size.

    Raises:
        ValueError: the size is missing, not whole, or out of range; and like `image_size` for the picture.
    """
    sides = image.get("height"), image.get("width")
    if sides == (None, None) and picture is not None:
        return image_size(picture)
    height, width = (whole(side) or 0 for side in sides)
    if not (0 < height <= rle.MAX_SIDE and 0 < width <= rle.MAX_SIDE):
        raise ValueError(f"image {image.get('id')!r} has height and width {sides}; expected 1 to {rle.MAX_SIDE}")
    return height, width


def file_name_of(image: Record) -> str:
    """The file name of an image record. Raises ValueError if there is none."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"image {image.get('id')!r} has the file_name {str(name)[:40]!r}; expected a name")
    return name


def decode_masks(annotations: list[Record], size: tuple[int, int], field: str = "segmentation") -> Tensor:
    """Masks of annotations, (G, H, W) bool. Polygons of an annotation are united; without an outline it is empty.

    Raises:
        ValueError: a segmentation cannot be read or has another size; the message names the annotation.
    """
    out = torch.zeros(len(annotations), *size, dtype=torch.bool)
    for row, annotation in zip(out, annotations, strict=True):
        try:
            mask = rle.decode(polygons_of(annotation.get(field)), size)
            if mask.shape != size:
                raise ValueError(f"its RLE is of size {list(mask.shape)}, the image of {list(size)}")
            row[:] = torch.from_numpy(mask)
        except ValueError as error:
            raise ValueError(f"annotation {annotation.get('id')!r}: {error}") from error
    return out


def polygons_of(segmentation: Any) -> Any:
    """A segmentation with polygons as lists x, y, x, y, …, from any form: one such list, or corners [x, y].

    Run lengths stay unchanged; None becomes an empty list.

    >>> polygons_of([0, 0, 4, 0, 4, 4]), polygons_of([[0, 0], [4, 0], [4, 4]])
    ([[0, 0, 4, 0, 4, 4]], [[0, 0, 4, 0, 4, 4]])
    """
    if segmentation is None:
        return []
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation
    if isinstance(segmentation[0], int | float):
        return [segmentation]
    if all(_is_corner(part) for part in segmentation):
        segmentation = [segmentation]
    return [
        [value for corner in part for value in corner]
        if isinstance(part, list) and part and all(map(_is_corner, part))
        else part
        for part in segmentation
    ]


def _is_corner(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, int | float) for one in value)
