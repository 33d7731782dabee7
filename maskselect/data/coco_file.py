"""A COCO annotation file: images, annotations and categories by id, masks decoded when asked for.

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
    """Records of one file through its index.

    more: further sections of the file, to be asked for through `index`.
    Raises FileNotFoundError when there is no file, ValueError when it is damaged or lacks a section.
    """

    def __init__(self, path: Path, more: Mapping[str, Section] | None = None) -> None:
        self.path = path
        self.index: Index = open_index(path, SECTIONS | dict(more or {}))
        self.need("image")

    def need(self, section: str) -> None:
        """Raises ValueError, which says what the file has instead, when a section has no record."""
        if self.index.count(section) == 0:
            name = f"{section}s"
            raise ValueError(
                f"{self.path} has no {name}: that list is {_instead(self.path, name)}; "
                "expected a COCO file with lists of images, annotations and categories"
            )

    def image(self, key: Key) -> Record:
        """The record of an image. Raises ValueError when there is none."""
        return self.index.get("image", key)

    def annotations(self, image: Key) -> list[Record]:
        """All annotations of an image, crowds too. Ids, categories and `iscrowd` are in one form, see `data.values`;
        an annotation without id is named by its place.

        Raises ValueError for an `iscrowd` that is no flag.
        """
        found = self.index.of_group("annotation", image)
        try:
            return [_plain(record, f"{place} of image {image}") for place, record in enumerate(found)]
        except ValueError as error:
            raise ValueError(f"{self.path}, {error}") from error

    def category_names(self) -> dict[Key, str]:
        """Names by id. Raises ValueError for a category without a name, and as `refuse_same_names`."""
        try:
            names = names_of(self.index.all("category"), "category")
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        self.refuse_same_names(names)
        return names

    def refuse_same_names(self, names: Mapping[Key, str]) -> None:
        """Raise ValueError when annotations have two categories of one name.

        The same prompt would be asked twice, each time with a part of the targets. A category without annotations may
        have a name that another has, as in exports of Roboflow.
        """
        asked = {key: " ".join(name.lower().split()) for key, name in names.items()}
        if len(set(asked.values())) == len(asked):
            return
        told = [record.get("category_id") for record in self.index.all("annotation")]
        used = {str(value if whole(value) is None else whole(value)) for value in told}
        first: dict[str, int] = {}
        for place, (key, name) in enumerate(asked.items()):
            if str(key) in used and first.setdefault(name, place) != place:
                raise same_key(self.path, "category", first[name], place, "name", names[key])


def _instead(path: Path, name: str) -> str:
    kind = kind_at(path, name)
    return "empty" if kind == "a list" else kind


def _plain(annotation: Record, name: str) -> Record:
    """An annotation with its ids as `data.values` has them. name: its own where it has no id."""
    key = annotation.get("id")
    plain = annotation | {"id": name if key is None else key_of(key)}
    try:
        plain["iscrowd"] = flag_of(annotation.get("iscrowd"), "iscrowd")
    except ValueError as error:
        raise ValueError(f"annotation {plain['id']!r}: {error}") from error
    category = annotation.get("category_id")
    if (number := whole(category)) is not None:
        plain["category_id"] = number
    return plain


def size_of(image: Record, picture: Path | None = None) -> tuple[int, int]:
    """(H, W) of an image record. picture: its file, which is asked where the record says nothing.

    Raises ValueError when it is absent, not whole numbers, or absurd; as `image_size` for the picture.
    """
    told = image.get("height"), image.get("width")
    if told == (None, None) and picture is not None:
        return image_size(picture)
    height, width = (whole(side) or 0 for side in told)
    if not (0 < height <= rle.MAX_SIDE and 0 < width <= rle.MAX_SIDE):
        raise ValueError(f"image {image.get('id')!r} has height and width {told}; expected 1 to {rle.MAX_SIDE}")
    return height, width


def file_name_of(image: Record) -> str:
    """The file name of an image record. Raises ValueError when there is none."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"image {image.get('id')!r} has the file_name {str(name)[:40]!r}; expected a name")
    return name


def decode_masks(annotations: list[Record], size: tuple[int, int], field: str = "segmentation") -> Tensor:
    """The masks of annotations, (G, H, W) bool; polygons that overlap are united, one without outline is empty.

    Raises ValueError, naming the annotation, for a segmentation that cannot be read or is of another size.
    """
    out = torch.zeros(len(annotations), *size, dtype=torch.bool)
    for row, annotation in zip(out, annotations, strict=True):
        try:
            row[:] = torch.from_numpy(_decoded(annotation.get(field), size))
        except ValueError as error:
            raise ValueError(f"annotation {annotation.get('id')!r}: {error}") from error
    return out


def _decoded(segmentation: Any, size: tuple[int, int]) -> Any:
    found = rle.decode(polygons_of(segmentation), size)
    if found.shape != size:
        raise ValueError(f"its RLE is of size {list(found.shape)}, the image of {list(size)}")
    return found


def polygons_of(segmentation: Any) -> Any:
    """A segmentation whose polygons are lists x, y, x, y, …, whichever way they are written: one such list alone, or
    corners as [x, y]. Run lengths stay as they are; None, no outline, is no polygon.

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
