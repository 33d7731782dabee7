"""The images of a data set: in a folder, in WebDataset shards, in parquet, or of a data set by name.

A source lists its images as units: JSON records with a unique `key`. It is picklable and opens its files in the process
that reads them.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskselect.data.catalog import SampleReader, find_entry
from maskselect.data.images import SUFFIXES, list_images, load_image
from maskselect.ops.text import readable
from maskselect.recipes.engine import Record
from maskselect.recipes.packed_images import ParquetImages, TarImages
from maskselect.scenes.layout import build_scene, scene_ids
from maskselect.scenes.render import render
from maskselect.scenes.spec import SPLITS


class ImageSource(Protocol):
    """Images by key."""

    def units(self) -> list[Record]:
        """One record an image, in order.

        Raises:
            ValueError: two images have the same key.
        """
        ...

    def load(self, unit: Record) -> np.ndarray:
        """(H, W, 3) uint8.

        Raises:
            ValueError, OSError: the image cannot be read; the message names it.
        """
        ...


class FolderImages:
    """The image files directly in a folder; a key is the name of a file, see `ops.text.readable`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def units(self) -> list[Record]:
        """Sorted by name."""
        return [{"key": readable(path.name)} for path in list_images(self.folder)]

    def load(self, unit: Record) -> np.ndarray:
        """See `load_image`."""
        path = self.folder / unit["key"]
        if not path.exists():  # a name that is not UTF-8
            path = next((file for file in list_images(self.folder) if readable(file.name) == unit["key"]), path)
        return load_image(path)


class DatasetImages:
    """The images of a data set of the catalog, each once; the keys are its image ids.

    Raises:
        ValueError: the name is unknown; and every error of the data set's reader.
    """

    def __init__(self, name: str, root: Path, split: str) -> None:
        self.entry, self.root, self.split = find_entry(name), root, split
        self._reader: SampleReader | None = self.entry.open(root, split)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}

    def units(self) -> list[Record]:
        """In the order of the samples; a unit names the first sample of its image."""
        first: dict[str, int] = {}
        for number, image in enumerate(self._open().image_ids()):
            first.setdefault(str(image), number)
        return [{"key": image, "sample": number} for image, number in first.items()]

    def load(self, unit: Record) -> np.ndarray:
        """The image of that sample."""
        return load_image(self._open()[unit["sample"]].image)

    def _open(self) -> SampleReader:
        if self._reader is None:
            self._reader = self.entry.open(self.root, self.split)
        return self._reader


class SceneImages:
    """Generated scenes at the evaluator's size, 256 x 256; the keys are the scenes' ids."""

    def __init__(self, split: str, count: int, seed: int) -> None:
        if split not in SPLITS:
            raise ValueError(f"scenes have no split {split!r}; there are {', '.join(SPLITS)}")
        self.ids = list(scene_ids(split, seed, count))

    def units(self) -> list[Record]:
        """In the generator's order."""
        return [{"key": scene_id} for scene_id in self.ids]

    def load(self, unit: Record) -> np.ndarray:
        """Render the scene."""
        return render(build_scene(unit["key"])).image


def open_images(path: Path, image_column: str | None = None, key_column: str | None = None) -> ImageSource:
    """A folder of images, of .tar or of .parquet files, looked for in this order; or one such file.

    For the names of columns see `ParquetImages`.

    Raises:
        FileNotFoundError: there is no such path, or nothing in it.
        ValueError: the file is of another kind.
    """
    if path.is_file():
        packed = [path]
        if path.suffix not in (".tar", ".parquet"):
            raise ValueError(f"{path} is neither .tar nor .parquet; expected one of these, or a folder of images")
    else:
        packed = sorted(path.glob("[!.]*"))
        if any(file.suffix.lower() in SUFFIXES for file in packed):
            return FolderImages(path)
    if tars := [file for file in packed if file.suffix == ".tar"]:
        return TarImages(tars)
    if tables := [file for file in packed if file.suffix == ".parquet"]:
        return ParquetImages(tables, image_column, key_column)
    return FolderImages(path)  # which raises FileNotFoundError


def open_dataset(name: str, root: Path | None, split: str, scenes: int = 1000, seed: int = 0) -> ImageSource:
    """The images of a data set by name.

    Args:
        name: in the catalog, or "scenes".
        root: folder of the data set; None for generated scenes.

    Raises:
        FileNotFoundError: a file of the data set is missing.
        ValueError: a file is damaged, or a name or `root` is missing.
    """
    if root is not None:
        return DatasetImages("maskgroups" if name == "scenes" else name, root, split)
    if name == "scenes":
        return SceneImages(split, scenes, seed)
    raise ValueError(f"dataset {name!r} needs --root: a folder with the data; get it from {find_entry(name).page}")
