"""Your own data as YOLO's segmentation labels; `maskselect.data.own` describes the folder."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from maskselect.data.files import inside, refuse_pointer
from maskselect.data.images import SUFFIXES, image_size
from maskselect.data.index import Key
from maskselect.data.own_files import LabelFiles, questions_by_name
from maskselect.data.questions import QuestionedImage
from maskselect.data.values import whole
from maskselect.ops import rle

NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt")
"""Files with the names of the classes; the first that exists is used."""

_SLACK = 0.01  # tools round, so that an outline may be slightly outside of the image


class YoloSamples(LabelFiles):
    """Samples of YOLO labels, one per image and class; the targets are all objects of that class.

    The label of `images/a.jpg` is `labels/a.txt`; an image without one has no objects.

    Args:
        file: one of `NAMES`, in the folder of the data.
        names: of the classes.
        pictures: image files in that folder.
    """

    def __init__(self, file: Path, names: dict[int, str], pictures: Sequence[Path]) -> None:
        self.root, self.names = file.parent, names
        super().__init__(file, [picture.relative_to(self.root).as_posix() for picture in pictures])

    def _names(self, key: str) -> list[str]:
        return [self.names[line.category] for line in self._lines(key)]

    def _read(self, key: Key) -> QuestionedImage:
        picture = self.root / str(key)
        height, width = image_size(picture)
        lines = self._lines(str(key))
        masks = torch.zeros(len(lines), height, width, dtype=torch.bool)
        for mask, line in zip(masks, lines, strict=True):
            polygon = (line.corners * [width, height]).ravel()
            mask[:] = torch.from_numpy(rle.decode([[float(value) for value in polygon]], (height, width)))
        questions = questions_by_name(self.names[line.category] for line in lines)
        return QuestionedImage(picture, str(key), masks, len(masks), questions)

    def _lines(self, key: str) -> "list[_Line]":
        file = self.root / label_of(key)
        if not file.is_file():
            return []
        refuse_pointer(file, f"label {file}")
        try:
            rows = file.read_text("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"label {file} is not a text in UTF-8") from error
        lines = []
        for number, row in enumerate(rows, 1):
            if row.strip():
                try:
                    lines.append(_line(row.split(), self.names))
                except ValueError as error:
                    raise ValueError(f"label {file}, line {number} {error}") from error
        return lines


class _Line(NamedTuple):
    """A class and its outline, (P, 2) float64 corners (x, y) in 0 to 1."""

    category: int
    corners: np.ndarray


def _line(words: list[str], names: dict[int, str]) -> _Line:
    try:
        category, values = whole(float(words[0])), np.array([float(word) for word in words[1:]])
    except ValueError as error:
        raise ValueError(f"is {' '.join(words)[:60]!r}; expected a class and x y x y …") from error
    if category not in names:
        raise ValueError(f"has the class {words[0][:20]}; expected one of the {len(names)} that have a name")
    if len(values) == 4:
        raise ValueError("is a box; expected an outline, x y x y x y …: export segmentation labels instead")
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"has {len(values)} numbers after the class; expected pairs x y, 3 or more")
    if not ((values >= -_SLACK) & (values <= 1 + _SLACK)).all():
        raise ValueError(f"has the coordinate {values[np.abs(values - 0.5).argmax()]:g}; expected fractions, 0 to 1")
    return _Line(category, np.clip(values, 0, 1).reshape(-1, 2))  # type: ignore[arg-type]


def find_yolo(root: Path, split: str) -> YoloSamples | None:
    """The labels of a split; None if the folder has none.

    Args:
        root: folder of the data.
        split: a key of data.yaml, or a folder in `images/`; "all" if the images are directly in `images/`.

    Raises:
        ValueError: the file of names is damaged.
        FileNotFoundError: images or labels of that file do not exist.
    """
    file = next((root / name for name in NAMES if (root / name).is_file()), None)
    if file is None:
        return None
    names, config = _read_names(file)
    listed = config.get(split)
    if listed is None:
        choices = [_pictures(root / "images" / split), _pictures(root / split / "images")]
        if split == "all":
            choices.append([path for path in _pictures(root / "images") if path.parent.name == "images"])
        pictures = next(filter(None, choices), [])
    else:
        entries, folder = listed if isinstance(listed, list) else [listed], str(config.get("path") or ".")
        pictures = [picture for entry in entries for picture in _listed(file, folder, entry)]
    pictures = list(dict.fromkeys(pictures))
    labels = [root / label_of(picture.relative_to(root).as_posix()) for picture in pictures]
    if any(label.is_file() for label in labels):
        return YoloSamples(file, names, pictures)
    if labels and file.suffix != ".txt":
        raise FileNotFoundError(
            f"{file} names {len(labels)} pictures of {split}, none with a label such as {labels[0]}"
        )
    return None


def label_of(picture: str) -> str:
    """The name of an image's label: the last folder `images` becomes `labels`.

    >>> label_of("images/train/a.b.jpg"), label_of("train/images/a.png"), label_of("a.jpg")
    ('labels/train/a.b.txt', 'train/labels/a.txt', 'a.txt')
    """
    path = PurePosixPath(picture).with_suffix(".txt")
    parts = list(path.parts)
    if "images" in parts[:-1]:
        place = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[place] = "labels"
    return str(PurePosixPath(*parts))


def _read_names(file: Path) -> tuple[dict[int, str], dict[str, Any]]:
    """Names by class, and the whole content of the file."""
    refuse_pointer(file, f"file {file}")
    try:
        text = file.read_text("utf-8-sig")
        config = {"names": text.split("\n")} if file.suffix == ".txt" else yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file} is not YAML in UTF-8: {' '.join(str(error).split())}") from error
    names = config.get("names") if isinstance(config, dict) else None
    if isinstance(names, list):
        last = max((place for place, name in enumerate(names) if str(name).strip()), default=-1)
        names = dict(enumerate(names[: last + 1]))
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{file} has no names; expected a list of the classes' names, or an object by number")
    by_class: dict[int, str] = {}
    for key, name in names.items():
        number = whole(key)
        if number is None or not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise ValueError(f"{file} has the name {str(name)[:40]!r} for class {str(key)[:40]!r}; expected a text")
        by_class[number] = str(name).strip()
    return by_class, config


def _listed(file: Path, folder: str, entry: Any) -> list[Path]:
    """The images of an entry of data.yaml: a folder, a text file that lists images, or an image.

    `folder` is the `path` in the file, which may be that of another machine.
    """
    place = _below(file.parent, f"{folder}/{entry}") or _below(file.parent, entry)
    if place is None:
        raise FileNotFoundError(f"{file} looks for pictures in {str(entry)[:80]!r}, which is not below {file.parent}")
    if place.suffix != ".txt":
        return _pictures(place)
    rows = [row.strip() for row in place.read_text("utf-8-sig", errors="replace").splitlines()]
    paths = {row: _below(file.parent, row) for row in rows if row}
    if missing := [row for row, path in paths.items() if path is None]:
        raise FileNotFoundError(f"{place} lists {missing[0][:80]!r}, which is not below {file.parent}")
    return [path for path in paths.values() if path is not None]


def _below(root: Path, entry: Any) -> Path | None:
    """The file or folder of an entry below the root, or None.

    Tools write `../train/images` for `train/images`, or an absolute path of the exporting machine. So `..` is removed,
    and leading parts are dropped until a path exists: down to one part for a file, two for an absolute folder.
    """
    plain = PurePosixPath(str(entry).replace("\\", "/"))
    parts = [part for part in plain.parts if part not in ("..", ".", "/") and not part.endswith(":")]
    foreign = plain.is_absolute() or (plain.parts and plain.parts[0].endswith(":"))
    fewest = 1 if plain.suffix else 2 if foreign else len(parts)
    for start in range(len(parts) - fewest + 1):
        path = inside(root, "/".join(parts[start:]), "entry")
        if path.exists():
            return path
    return None


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return [folder] if folder.is_file() else []
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
