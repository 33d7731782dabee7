"""PAS-20, PC-59 and ADE-150: label maps for open-vocabulary semantic segmentation, as Text4Seg evaluates it.

One item per image; the classes of all pixels are asked together. `semantic.py` reads ADE20K for training, one sample
per class.

On disk, for any data set of this form: `classes.txt`, one class a line, the first line `others`; `labels/{split}/*.png`
with one channel of 8 bits or a palette, where the value n is line n, from 0; `images/{split}/*.jpg` or `.png` of the
same stems. The three known data sets are also read as they are published, and then need no `classes.txt`:

**PAS-20** (PASCAL VOC 2012, https://host.robots.ox.ac.uk/pascal/VOC/voc2012/): 1,449 images of val, 20 classes. Under
the root or its `VOCdevkit/VOC2012/`: `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation/{split}.txt`.
**PC-59** (PASCAL Context, https://cs.stanford.edu/~roozbeh/pascal-context/): 5,105 images of val, 59 classes. Under the
root or its `VOCdevkit/VOC2010/`: `JPEGImages`, `SegmentationClassContext` (label images, as mmsegmentation makes them),
`ImageSets/SegmentationContext/{split}.txt`.
**ADE-150** (ADEChallengeData2016, see `semantic.py`): 2,000 images of validation, 150 classes.

Quirks: 255 (outlines of PASCAL VOC) is `others`, because Text4Seg trains on it as `others`; its evaluation of these
pixels is not described.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from maskselect.data.files import Images, find_one
from maskselect.data.images import image_size
from maskselect.data.label_images import read_label
from maskselect.data.reader import Reader
from maskselect.data.semantic import ADE20K
from maskselect.ops.text import tidy
from maskselect.structures.semantic import LabelledImage

OTHERS = "others"
_VOID = 255
_HELP = "maskselect/data/label_maps.py describes the folder"

PASCAL_20 = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Classes of PASCAL VOC; the pixel n is the n-th class, from 1."""

PASCAL_59 = (
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building", "bus",
    "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog", "door", "fence",
    "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse",
    "person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky",
    "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)  # fmt: skip
"""Classes of PASCAL Context; the pixel n is the n-th class, from 1."""


@dataclass(frozen=True)
class _Layout:
    """A form on disk. Paths are relative to one of `homes`; `{split}` stands for the split."""

    labels: str
    images: str
    homes: tuple[str, ...] = ("",)
    listed: str = ""
    names: tuple[str, ...] = ()
    page: str = ""


_OWN = _Layout("labels/{split}", "images/{split}")
_LAYOUTS = {
    "pas-20": _Layout(
        "SegmentationClass",
        "JPEGImages",
        ("", "VOC2012/", "VOCdevkit/VOC2012/"),
        "ImageSets/Segmentation/{split}.txt",
        PASCAL_20,
        "get it from https://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    ),
    "pc-59": _Layout(
        "SegmentationClassContext",
        "JPEGImages",
        ("", "VOC2010/", "VOCdevkit/VOC2010/"),
        "ImageSets/SegmentationContext/{split}.txt",
        PASCAL_59,
        "get it from https://cs.stanford.edu/~roozbeh/pascal-context/",
    ),
    "ade-150": _Layout(
        "annotations/{split}",
        "images/{split}",
        ("", "ade20k/", "ADEChallengeData2016/"),
        names=ADE20K,
        page="get ADEChallengeData2016 from https://groups.csail.mit.edu/vision/datasets/ADE20K/",
    ),
}


class LabelMapDataset(Reader[LabelledImage]):
    """Images with a class for each pixel.

    Args:
        root: see the top of the file.
        split: of the data set; of ADE-150 training or validation, or short, train or val.
        name: `pas-20`, `pc-59` or `ade-150`; "" for a data set with its own `classes.txt`.

    Attributes:
        classes: names by number; the first is `others`.

    Raises:
        FileNotFoundError: a folder or a file of the layout does not exist.
        ValueError: the list of classes is damaged.
    """

    def __init__(self, root: str | Path, split: str = "val", name: str = "") -> None:
        root, known = Path(root), _LAYOUTS.get(name, _OWN)
        if name == "ade-150":
            split = {"train": "training", "val": "validation"}.get(split, split)
        places = [(root / home, layout) for layout in dict.fromkeys((_OWN, known)) for home in layout.homes]
        choices = [str((home / layout.labels.format(split=split)).relative_to(root)) for home, layout in places]
        self.source = find_one(root, choices, f"label images of split {split!r}", known.page or _HELP)
        home, layout = places[[root / choice for choice in choices].index(self.source)]
        self.classes = _classes(root / "classes.txt", known.names)
        self.images = Images([home / layout.images.format(split=split)], known.page or _HELP)
        self._rows: list[str] = sorted(path.stem for path in self.source.glob("*.png"))
        if layout.listed:
            listed = find_one(home, [layout.listed.format(split=split)], f"list of split {split!r}", known.page)
            self._rows = listed.read_text().split()

    def __getitem__(self, number: int) -> LabelledImage:
        """Decode one image, see `Reader`."""
        stem = self._rows[number]
        path = self.source / f"{stem}.png"
        label = read_label(path)
        label = np.where(label == _VOID, np.uint8(0), label)
        if label.max(initial=0) >= len(self.classes):
            raise ValueError(f"label {path} has the value {label.max()}; expected 0 to {len(self.classes) - 1}, or 255")
        image = self._picture(stem)
        if (size := image_size(image)) != label.shape:
            raise ValueError(f"label {path} is of size {list(label.shape)}, its image of {list(size)}")
        return LabelledImage(image, stem, torch.from_numpy(label))

    def image_ids(self) -> list[str]:
        """The id of each image."""
        return list(self._rows)

    def _picture(self, stem: str) -> Path:
        try:
            return self.images.find(f"{stem}.jpg")
        except FileNotFoundError:
            return self.images.find(f"{stem}.png")


def _classes(path: Path, known: tuple[str, ...]) -> tuple[str, ...]:
    """`others` and the names of the classes: those of the file if there is one, else the known ones."""
    if not path.is_file():
        if not known:
            raise FileNotFoundError(f"{path} is not there; expected one class a line, the first line {OTHERS!r}")
        return (OTHERS, *known)
    names = [tidy(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names or names[0] != OTHERS:
        raise ValueError(f"{path} begins with {names[0] if names else ''!r}; expected {OTHERS!r} on the first line")
    if not 2 <= len(names) <= _VOID:
        raise ValueError(f"{path} has {len(names) - 1} classes beside {OTHERS!r}; expected 1 to {_VOID - 1}")
    folded = [name.casefold() for name in names]
    for number, name in enumerate(names):
        if "|" in name or folded.index(name.casefold()) != number:
            raise ValueError(f"{path}, line {number + 1}: {name!r} occurs twice or holds '|'; expected another name")
    return tuple(names)
