"""Answers as annotated data sets of other tools: a folder with the labels and copies of the pictures.

Each folder opens in the tool and, with `--split all`, in `maskselect.data.own`. Categories are the captions of the
prompts, or the classes that a prompt lists.
"""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from maskselect.ops.atomic import atomic_file, refuse_filled, write_text
from maskselect.ops.text import json_bytes, readable
from maskselect.structures.label_files import labelme_record, yolo_lines
from maskselect.structures.prediction import MaskGroup


class DataSet(ABC):
    """A folder that is filled picture by picture.

    Args:
        folder: a new or an empty folder; it is made with the first picture.

    Raises:
        ValueError: the folder has files, which may be labels that somebody corrected.
    """

    pictures_in = "images"
    """Folder of the pictures in the data set."""

    def __init__(self, folder: Path) -> None:
        refuse_filled(folder)
        self.folder = folder
        self.pictures: dict[str, Path] = {}
        self.masks = 0
        self._categories: dict[str, int] = {}

    def add(self, picture: Path, groups: Sequence[MaskGroup]) -> None:
        """Copy a picture and write its labels.

        Args:
            picture: the file.
            groups: its answers, one for each prompt, at least one.

        Raises:
            ValueError: there is a picture of that name already.
            OSError: the file cannot be copied.
        """
        name = readable(picture.name).replace("\\", "_")  # some tools take a backslash for a folder
        if name in self.pictures:
            raise ValueError(
                f"{self.folder} has a picture {name} already, {self.pictures[name]}, and cannot take {picture}; "
                "expected different names"
            )
        copy = self.folder / self.pictures_in / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(copy) as part:
            shutil.copyfile(picture, part)
        self.pictures[name] = picture
        self.masks += sum(map(len, groups))
        for category in (category for group in groups for category in group.categories):
            self._categories.setdefault(category, len(self._categories))
        self._write(name, groups)

    @abstractmethod
    def _write(self, name: str, groups: Sequence[MaskGroup]) -> None:
        """Write or keep the labels of a picture."""

    @abstractmethod
    def finish(self) -> None:
        """Write what belongs to all pictures together."""


class CocoDataSet(DataSet):
    """`annotations/instances_all.json` with compressed run lengths, and `images/`; the file is written at the end."""

    polygons = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def _write(self, name: str, groups: Sequence[MaskGroup]) -> None:
        image, (height, width) = len(self.pictures), groups[0].size
        self._images.append({"id": image, "file_name": name, "width": width, "height": height})
        for group in groups:
            for record, category in zip(group.to_coco(polygons=self.polygons), group.names, strict=True):
                ids = {"id": len(self._annotations) + 1, "image_id": image}
                ids["category_id"] = self._categories[category] + 1
                self._annotations.append(ids | record | {"iscrowd": 0})

    def finish(self) -> None:
        """Write the file."""
        file = self.folder / "annotations" / "instances_all.json"
        file.parent.mkdir(exist_ok=True)
        categories = [{"id": number + 1, "name": name} for name, number in self._categories.items()]
        content = {"images": self._images, "annotations": self._annotations, "categories": categories}
        head = {"info": {"description": "maskselect predict"}, "licenses": []}
        write_text(file, json.dumps(head | content, ensure_ascii=False))  # in one line: polygons have many numbers


class CocoPolygons(CocoDataSet):
    """The same with polygons, for programs that read no run lengths."""

    polygons = True


class LabelmeDataSet(DataSet):
    """`NAME.json` beside each picture."""

    pictures_in = "."

    def _write(self, name: str, groups: Sequence[MaskGroup]) -> None:
        objects = (one for group in groups for one in group.labelled())
        with atomic_file((self.folder / name).with_suffix(".json")) as part:
            part.write_bytes(json_bytes(labelme_record(objects, groups[0].size, name)))

    def finish(self) -> None:
        """Nothing is left to write."""


class YoloDataSet(DataSet):
    """`data.yaml`, `images/` and `labels/`; a picture without masks has an empty label."""

    def _write(self, name: str, groups: Sequence[MaskGroup]) -> None:
        objects = (one for group in groups for one in group.labelled())
        label = (self.folder / "labels" / name).with_suffix(".txt")
        label.parent.mkdir(exist_ok=True)
        write_text(label, yolo_lines(objects, list(self._categories), groups[0].size))

    def finish(self) -> None:
        """Write `data.yaml`. Training and validation are all pictures: how to divide them is for the user to say."""
        names = {number: readable(name) for name, number in self._categories.items()}
        content = {"train": "images", "val": "images", "names": names}
        write_text(self.folder / "data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


DATA_SETS: dict[str, type[DataSet]] = {
    "coco": CocoDataSet,
    "coco-polygons": CocoPolygons,
    "labelme": LabelmeDataSet,
    "yolo": YoloDataSet,
}
"""By the name of the format, which is also that of the folder."""


@contextmanager
def data_sets(formats: Sequence[str], output: Path) -> Iterator[list[DataSet]]:
    """Context with the data sets of those `formats` that are keys of `DATA_SETS`, in folders of `output`.

    They are finished at the end, also after an error or an interruption, if they have a picture.

    Raises:
        ValueError: a folder has files.
    """
    opened = [DATA_SETS[name](output / name) for name in formats if name in DATA_SETS]
    try:
        yield opened
    finally:
        for one in opened:
            if one.pictures:
                one.finish()
