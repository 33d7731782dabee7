"""Your own data as labelme writes it: one JSON file per image; `maskselect.data.own` describes the folder."""

import base64
import binascii
import io
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskselect.data.coco_file import size_of
from maskselect.data.files import inside, read_json
from maskselect.data.images import load_image
from maskselect.data.index import Key, Record
from maskselect.data.own_files import LabelFiles, questions_by_name
from maskselect.data.questions import QuestionedImage
from maskselect.ops import rle

_AREAS = "polygon, rectangle, circle or mask"
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, binascii.Error, Image.DecompressionBombError)
Object = tuple[str, list[Record]]
"""A label, and the shapes of one object."""


class LabelmeSamples(LabelFiles):
    """Samples of labelme files, one per image and label; the targets are all objects of that label.

    Shapes of one label and `group_id` are one object. An embedded image is used if its file does not exist.

    Args:
        root: folder of the images.
        files: label files in it.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        super().__init__(root, [file.relative_to(root).as_posix() for file in files])

    def _names(self, key: str) -> list[str]:
        return [label for label, _ in _objects(self.root / key)[1]]

    def _read(self, key: Key) -> QuestionedImage:
        file = self.root / str(key)
        record, objects = _objects(file)
        image = self._picture(file, record)
        try:
            sides = {"id": key, "height": record.get("imageHeight"), "width": record.get("imageWidth")}
            size = image.shape[:2] if isinstance(image, np.ndarray) else size_of(sides, image)
            masks = torch.zeros(len(objects), *size, dtype=torch.bool)
            for place, (_, shapes) in enumerate(objects):
                for shape in shapes:
                    masks[place] |= torch.from_numpy(shape_mask(shape, (int(size[0]), int(size[1]))))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        questions = questions_by_name(label for label, _ in objects)
        return QuestionedImage(image, str(key), masks, len(masks), questions)

    def _picture(self, file: Path, record: Record) -> Path | np.ndarray:
        """The image's file, or its embedded pixels."""
        name, embedded = record.get("imagePath"), record.get("imageData")
        path = self._path(file, str(name)) if name else None
        if path is not None and path.is_file():
            return path
        if embedded:
            try:
                return load_image(_decoded(embedded))
            except _DAMAGE as error:
                raise ValueError(f"{file} has imageData that is no picture in base64") from error
        raise FileNotFoundError(f"image {name!r} of {file} is missing: looked for {path}, and imageData is null")

    def _path(self, file: Path, name: str) -> Path:
        """The path of the image; labelme writes it relative to the label file, perhaps with `..`."""
        plain = PurePosixPath(name.replace("\\", "/"))
        if ".." not in plain.parts:
            return inside(file.parent, name, "image")
        folder = PurePosixPath(file.parent.relative_to(self.root).as_posix())
        return inside(self.root, posixpath.normpath(folder / plain), "image")


def labelme_files(folder: Path) -> list[Path]:
    """The labelme files directly in a folder; empty if no .json file there has shapes."""
    heads = {path: _head_of(path) for path in sorted(folder.glob("*.json")) if path.is_file()}
    if not any(b'"shapes"' in head for head in heads.values()):
        return []
    # Truncated files are kept, so that they are reported; COCO files are not.
    return [path for path, head in heads.items() if b'"annotations"' not in head and b'"images"' not in head]


def _head_of(path: Path) -> bytes:
    # labelme writes the shapes before the image.
    with path.open("rb") as file:
        return file.read(1 << 16)


def _objects(file: Path) -> tuple[Record, list[Object]]:
    """The record of a file and its objects. Raises ValueError if it is not labelme's."""
    record = read_json(file)
    shapes = record.get("shapes") if isinstance(record, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise ValueError(f"{file} has no list of shapes; expected a label file of labelme")
    objects: dict[Any, Object] = {}
    for number, shape in enumerate(shapes):
        label, group = shape.get("label"), shape.get("group_id")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"{file}, shape {number} has the label {str(label)[:40]!r}; expected a text to ask for")
        identity = ("alone", number) if group is None else (label.strip(), str(group))
        objects.setdefault(identity, (label.strip(), []))[1].append(shape | {"number": number})
    return record, list(objects.values())


def shape_mask(shape: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels of one shape, (H, W) bool. Polygons are drawn as COCO's; a circle covers pixels by their centres.

    Raises:
        ValueError: the shape has no area, or is damaged.
    """
    name, kind = f"shape {shape.get('number')}", shape.get("shape_type") or "polygon"
    points = _points(shape.get("points"), name)
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if kind == "circle" and len(points) == 2:
        return _disc(points, size)
    if kind == "mask" and len(points) == 2:
        return _pasted(shape.get("mask"), points, size, name)
    if kind not in ("polygon", "rectangle", "rotation"):
        wrong = f"has {len(points)} points, not 2" if kind in ("circle", "mask") else "has no area"
        raise ValueError(f"{name} is a {str(kind)[:40]!r} and {wrong}; expected {_AREAS}")
    if len(points) < 3:
        raise ValueError(f"{name} is a {kind} of {len(points)} points; expected 3 or more")
    return rle.decode([[float(value) for value in points.ravel()]], size)


def _points(value: Any, name: str) -> np.ndarray:
    try:
        points = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) < rle.MAX_SIDE).all():
        raise ValueError(f"{name} has the points {str(value)[:60]}; expected [[x, y], ...] in pixels")
    return points


def _disc(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A circle by its centre and a point on it."""
    (x, y), radius = points[0], float(np.hypot(*(points[1] - points[0])))
    rows, columns = np.ogrid[: size[0], : size[1]]
    disc: np.ndarray = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
    return disc


def _pasted(text: Any, points: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """A PNG in base64 for the part of the image from the first to the last of two `points` (x, y)."""
    (left, top), (right, bottom) = points.astype(int)
    try:
        pixels = np.asarray(_decoded(text))
    except _DAMAGE as error:
        raise ValueError(f"{name} has a mask that is no PNG in base64") from error
    part: np.ndarray = np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0)
    if part.shape != (bottom - top + 1, right - left + 1) or left < 0 or top < 0:
        raise ValueError(
            f"{name} has a mask of {list(part.shape)} for the box {points.tolist()}; expected it to fill it"
        )
    out = np.zeros(size, bool)
    room = out[top : bottom + 1, left : right + 1]
    room |= part[: room.shape[0], : room.shape[1]]
    return out


def _decoded(text: Any) -> Image.Image:
    """An image in base64. Raises one of `_DAMAGE`."""
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
        picture.load()
        return picture
