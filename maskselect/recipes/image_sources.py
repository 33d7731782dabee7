"""Where the images of a data set lie: a folder, WebDataset shards, parquet, or a data set by name.

Each source lists its images as units, plain records with a `key` that no other image has, and reads one when it is
asked to. It is picklable and opens its files in the process that reads them.
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
        """One plain record an image, in their order. Raises ValueError where two have one key."""
        ...

    def load(self, unit: Record) -> np.ndarray:
        """(H, W, 3) uint8. Raises ValueError or OSError, naming the image, when it cannot be read."""
        ...


class FolderImages:
    """The image files directly in a folder; their keys are their names, see `ops.text.readable`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def units(self) -> list[Record]:
        """By name."""
        return [{"key": readable(path.name)} for path in list_images(self.folder)]

    def load(self, unit: Record) -> np.ndarray:
        """As `load_image`."""
        path = self.folder / unit["key"]
        if not path.exists():  # a name that is not UTF-8
            path = next((file for file in list_images(self.folder) if readable(file.name) == unit["key"]), path)
        return load_image(path)


class DatasetImages:
    """The images of a data set of the catalog, each once; their keys are its image ids.

    Raises ValueError for an unknown name, and as the data set's reader does.
    """

    def __init__(self, name: str, root: Path, split: str) -> None:
        self.entry, self.root, self.split = find_entry(name), root, split
        self._reader: SampleReader | None = self.entry.open(root, split)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}

    def units(self) -> list[Record]:
        """In the order in which the data set asks about them; a unit names the first sample of its image."""
        first: dict[str, int] = {}
        for number, image in enumerate(self._open().image_ids()):
            first.setdefault(str(image), number)
        return [{"key": image, "sample": number} for image, number in first.items()]

    def load(self, unit: Record) -> np.ndarray:
        """The picture of that sample."""
        return load_image(self._open()[unit["sample"]].image)

    def _open(self) -> SampleReader:
        if self._reader is None:
            self._reader = self.entry.open(self.root, self.split)
        return self._reader


class SceneImages:
    """Generated scenes, of the size that the evaluator asks about (256²); their keys are the scenes' ids."""

    def __init__(self, split: str, count: int, seed: int) -> None:
        if split not in SPLITS:
            raise ValueError(f"scenes have no split {split!r}; there are {', '.join(SPLITS)}")
        self.ids = list(scene_ids(split, seed, count))

    def units(self) -> list[Record]:
        """In the generator's order."""
        return [{"key": scene_id} for scene_id in self.ids]

    def load(self, unit: Record) -> np.ndarray:
        """Drawn anew."""
        return render(build_scene(unit["key"])).image


def open_images(path: Path, image_column: str | None = None, key_column: str | None = None) -> ImageSource:
    """A folder of images, of .tar or of .parquet files, in this order, or one such file.

    image_column, key_column: see `ParquetImages`.
    Raises FileNotFoundError when there is no such path or nothing in it, ValueError for a file of another kind.
    """
    if path.is_file():
        kinds = {suffix: [path] if path.suffix == suffix else [] for suffix in (".tar", ".parquet")}
        if not any(kinds.values()):
            raise ValueError(f"{path} is neither .tar nor .parquet; expected one of these, or a folder of images")
    else:
        kinds = {suffix: sorted(path.glob(f"[!.]*{suffix}")) for suffix in (".tar", ".parquet")}
        if path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in path.iterdir() if file.name[0] != "."):
            return FolderImages(path)
    if kinds[".tar"]:
        return TarImages(kinds[".tar"])
    if kinds[".parquet"]:
        return ParquetImages(kinds[".parquet"], image_column, key_column)
    return FolderImages(path)  # which says that nothing is there


def open_dataset(name: str, root: Path | None, split: str, scenes: int = 1000, seed: int = 0) -> ImageSource:
    """The images of a data set by name; "scenes" without a root are generated, `scenes` of them from `seed`.

    Raises FileNotFoundError or ValueError when the data set is not there or not as it should be.
    """
    if root is not None:
        return DatasetImages("maskgroups" if name == "scenes" else name, root, split)
    if name == "scenes":
        return SceneImages(split, scenes, seed)
    raise ValueError(f"dataset {name!r} needs --root: a folder with the data; get it from {find_entry(name).page}")
