"""Your own data as labelme writes it: one JSON file a picture; `maskselect.data.own` says how the folder must look."""

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

from maskselect.data.asked import Asked
from maskselect.data.coco_file import size_of
from maskselect.data.files import inside, read_json
from maskselect.data.images import load_image
from maskselect.data.index import Key, Record
from maskselect.data.own_files import LabelFiles, ask_by_name
from maskselect.ops import rle

_AREAS = "polygon, rectangle, circle or mask"
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
Object = tuple[str, list[Record]]
"""A label and the shapes that are drawn for one object."""


class LabelmeSamples(LabelFiles):
    """Samples of labelme files: one for each picture and label; the targets are all objects of that label.

    root: where pictures may lie.  files: of the labels, in it.

    Shapes of one label and `group_id` are one object. An embedded picture is used where its file is not there.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        super().__init__(root, [file.relative_to(root).as_posix() for file in files])

    def _names(self, key: str) -> list[str]:
        return [label for label, _ in _objects(self.root / key)[1]]

    def _read(self, key: Key) -> Asked:
        file = self.root / str(key)
        record, objects = _objects(file)
        image = self._image(file, record)
        try:
            told = {"id": key, "height": record.get("imageHeight"), "width": record.get("imageWidth")}
            size = image.shape[:2] if isinstance(image, np.ndarray) else size_of(told, image)
            masks = torch.zeros(len(objects), *size, dtype=torch.bool)
            for place, (_, shapes) in enumerate(objects):
                for shape in shapes:
                    masks[place] |= torch.from_numpy(shape_mask(shape, (int(size[0]), int(size[1]))))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        return Asked(image, str(key), masks, len(masks), ask_by_name(label for label, _ in objects))

    def _image(self, file: Path, record: Record) -> Path | np.ndarray:
        """The picture's file, or its pixels where only the label file has them."""
        name, embedded = record.get("imagePath"), record.get("imageData")
        path = self._path(file, str(name)) if name else None
        if path is not None and path.is_file():
            return path
        if embedded:
            return _embedded(file, embedded)
        raise FileNotFoundError(f"image {name!r} of {file} is missing: looked for {path}, and imageData is null")

    def _path(self, file: Path, name: str) -> Path:
        """Where the picture lies; labelme writes its path as seen from the label file, which may hold `..`."""
        plain = PurePosixPath(name.replace("\\", "/"))
        if ".." not in plain.parts:
            return inside(file.parent, name, "image")
        folder = PurePosixPath(file.parent.relative_to(self.root).as_posix())
        return inside(self.root, posixpath.normpath(folder / plain), "image")


def labelme_files(folder: Path) -> list[Path]:
    """The labelme files directly in a folder; none where no .json file there has shapes."""
    found = {path: _head_of(path) for path in sorted(folder.glob("*.json")) if path.is_file()}
    if not any(b'"shapes"' in head for head in found.values()):
        return []
    # A truncated file is one too, so that it is told of; a COCO file that lies there is not.
    return [path for path, head in found.items() if b'"annotations"' not in head and b'"images"' not in head]


def _head_of(path: Path) -> bytes:
    # labelme writes the shapes before the picture; texts are not told apart from keys, which a guess need not do.
    with path.open("rb") as file:
        return file.read(1 << 16)


def _objects(file: Path) -> tuple[Record, list[Object]]:
    """The record of a file and its objects. Raises ValueError when it is not labelme's."""
    record = read_json(file)
    shapes = record.get("shapes") if isinstance(record, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise ValueError(f"{file} has no list of shapes; expected a label file of labelme")
    found: dict[Any, Object] = {}
    for number, shape in enumerate(shapes):
        label, group = shape.get("label"), shape.get("group_id")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"{file}, shape {number} has the label {str(label)[:40]!r}; expected a text to ask for")
        own = ("alone", number) if group is None else (label.strip(), str(group))
        found.setdefault(own, (label.strip(), []))[1].append(shape | {"number": number})
    return record, list(found.values())


def shape_mask(shape: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels of one shape, (H, W) bool. Polygons are drawn as COCO's; a circle has the pixels whose centres it has.

    Raises ValueError for a shape without area, or one that is damaged.
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


def _points(told: Any, name: str) -> np.ndarray:
    try:
        points = np.asarray(told, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) < rle.MAX_SIDE).all():
        raise ValueError(f"{name} has the points {str(told)[:60]}; expected [[x, y], ...] in pixels")
    return points


def _disc(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """points: the centre and one on the circle."""
    (x, y), radius = points[0], float(np.hypot(*(points[1] - points[0])))
    rows, columns = np.ogrid[: size[0], : size[1]]
    inside_it: np.ndarray = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
    return inside_it


def _pasted(told: Any, points: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """points: the first and the last pixel, each (x, y), of the part of the picture that the mask is."""
    (left, top), (right, bottom) = points.astype(int)
    try:
        with Image.open(io.BytesIO(base64.b64decode(told, validate=True))) as picture:
            pixels = np.asarray(picture)
    except (*_DAMAGE, TypeError, binascii.Error) as error:
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


def _embedded(file: Path, told: Any) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(base64.b64decode(told, validate=True))) as picture:
            picture.load()
            return load_image(picture)
    except (*_DAMAGE, TypeError, binascii.Error) as error:
        raise ValueError(f"{file} has imageData that is no picture in base64") from error
