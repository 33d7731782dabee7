"""A COCO annotation file: images, annotations and categories by id, masks decoded when asked for.

The base of most data sets here: `instances.json` of COCO, RefCOCO and gRefCOCO, LVIS, PACO, EntitySeg.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.data.index import Index, Key, Record, Section, open_index
from maskselect.ops import rle

SECTIONS = {
    "image": Section("images"),
    "annotation": Section("annotations", group="image_id"),
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
        if self.index.count("image") == 0:
            raise ValueError(f"{path} has no images; expected a COCO file with images, annotations and categories")

    def image(self, key: Key) -> Record:
        """The record of an image. Raises ValueError when there is none."""
        return self.index.get("image", key)

    def annotations(self, image: Key) -> list[Record]:
        """All annotations of an image, crowds too."""
        return self.index.of_group("annotation", image)

    def category_names(self) -> dict[Key, str]:
        """Names by id."""
        return {record["id"]: str(record.get("name", record["id"])) for record in self.index.all("category")}


def size_of(image: Record) -> tuple[int, int]:
    """(H, W) of an image record. Raises ValueError when it is absent, not whole numbers, or absurd."""
    size = image.get("height"), image.get("width")
    if not all(isinstance(side, int) and 0 < side <= rle.MAX_SIDE for side in size):
        raise ValueError(f"image {image.get('id')!r} has height and width {size}; expected 1 to {rle.MAX_SIDE}")
    return int(size[0]), int(size[1])  # type: ignore[arg-type]


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
    if segmentation is None:
        return rle.decode([], size)
    found = rle.decode(segmentation, size)
    if found.shape != size:
        raise ValueError(f"its RLE is of size {list(found.shape)}, the image of {list(size)}")
    return found
