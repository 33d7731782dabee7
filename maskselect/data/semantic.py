"""ADE20K, COCO-Stuff and Mapillary Vistas: a class for each pixel, as LISA trains on them.

One sample per image and class. A mask is a class with all its instances; the pool is every class of the image; pixels
without a class are ignored. The classes of each image are read from the labels at the first opening and kept beside
their folder (`NAME.classes.json`), or in the user's cache.

**ADE20K** (ADEChallengeData2016, https://groups.csail.mit.edu/vision/datasets/ADE20K/; BSD-3 for the annotations,
images for research only): about 20,210 training and 2,000 validation images, 150 classes. On disk, under the root, its
`ade20k/` or `ADEChallengeData2016/`: `images/{training,validation}/*.jpg` and `annotations/{…}/*.png`.
Quirks: 0 is unlabelled (in LISA 255), n is the n-th class.

**COCO-Stuff** (https://github.com/nightrome/cocostuff, `stuffthingmaps_trainval2017.zip`; CC BY 4.0, images COCO's):
the images of COCO 2017, 182 classes of which 171 occur. On disk, under the root, its `cocostuff/` or `stuffthingmaps/`:
`{split}/*.png`; the images in `coco/{split}` or `{split}`.
Quirks: the pixel n is the class n + 1 of the published list, whose 0 is "unlabeled"; 255 is unlabelled. Classes with a
dash in their name (`wall-brick`, `water-other`) are ignored, as in LISA, unless every class is wanted. Files ending in
`_labelTrainIds.png` have another numbering and are skipped.

**Mapillary Vistas v2.0** (https://www.mapillary.com/dataset/vistas; research licence): about 18,000 / 2,000 / 5,000
images of training, validation and testing (without labels), 124 classes. On disk, under the root or its `mapillary/`:
`config_v2.0.json`, `{split}/images/*.jpg` and `{split}/v2.0/labels/*.png`.
Quirks: a label is a palette image whose index is the place in the configuration's list; 255 is never a class. Classes
that Vistas does not evaluate ("unlabeled", "ego vehicle") are ignored; LISA uses them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from maskselect.data.coco import coco_split, folders
from maskselect.data.files import Images, find_one, read_json
from maskselect.data.images import image_size
from maskselect.data.index import Key
from maskselect.data.label_images import present_values, read_label, values_of
from maskselect.data.questions import ImageQuestions, Question, QuestionedImage

_ADE_PAGE = "get ADEChallengeData2016 from https://groups.csail.mit.edu/vision/datasets/ADE20K/"
_STUFF_PAGE = "get stuffthingmaps_trainval2017.zip from https://github.com/nightrome/cocostuff"
_VISTAS_PAGE = "get it from https://www.mapillary.com/dataset/vistas"
_UNLABELLED = 255

ADE20K = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat",
    "bar", "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle",
    "oven", "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake",
    "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan",
    "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
"""Classes of ADE20K; the pixel n is the n-th class, from 1."""

COCO_STUFF = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "street sign", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep",
    "cow", "elephant", "bear", "zebra", "giraffe", "hat", "backpack", "umbrella", "shoe", "eye glasses", "handbag",
    "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "plate", "wine glass", "cup", "fork", "knife", "spoon",
    "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake",
    "chair", "couch", "potted plant", "bed", "mirror", "dining table", "window", "desk", "toilet", "door", "tv",
    "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "blender", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "hair brush", "banner",
    "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet", "ceiling-other",
    "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain", "desk-stuff", "dirt", "door-stuff",
    "fence", "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other",
    "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves", "light", "mat", "metal",
    "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper", "pavement", "pillow", "plant-other",
    "plastic", "platform", "playingfield", "railing", "railroad", "river", "road", "rock", "roof", "rug", "salad",
    "sand", "sea", "shelf", "sky", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw", "structural-other",
    "table", "tent", "textile-other", "towel", "tree", "vegetable", "wall-brick", "wall-concrete", "wall-other",
    "wall-panel", "wall-stone", "wall-tile", "wall-wood", "water-other", "waterdrops", "window-blind", "window-other",
    "wood",
)  # fmt: skip
"""Classes of COCO-Stuff in the order of its list, without "unlabeled"; the pixel 0 is the first."""


class SemanticDataset(ImageQuestions):
    """Samples of a folder of label images: one per image and class. A damaged label raises on access.

    Args:
        labels: folder of 8-bit images.
        images: where the images are, `.jpg` or `.png` of the same stem.
        names: names of pixel values; values of one name are one class.
        void: values that are ignored.

    Raises:
        FileNotFoundError: there are no labels.
    """

    def __init__(self, labels: Path, images: Images, names: Mapping[int, str], void: Iterable[int]) -> None:
        self.images, self.names, self.void = images, dict(names), frozenset(void)
        values = present_values(labels)
        # A damaged label counts as one sample, so that `data check` finds it.
        counts = {stem: 1 if present is None else len(self._questions(present)) for stem, present in values.items()}
        super().__init__(labels, ((stem, "c" * count) for stem, count in counts.items()), "c")

    def _questions(self, values: Iterable[int]) -> list[Question]:
        """One question per class; its target is the place in `_classes`."""
        classes = enumerate(self._classes(values))
        return [Question("c", str(same[0]), self.names[same[0]], (place,)) for place, same in classes]

    def _classes(self, values: Iterable[int]) -> list[list[int]]:
        """The values of each class, by the smallest value."""
        classes: dict[str, list[int]] = {}
        for value in sorted(values):
            if value in self.names and value not in self.void:
                classes.setdefault(self.names[value], []).append(value)
        return list(classes.values())

    def _read(self, key: Key) -> QuestionedImage:
        path = self.source / f"{key}.png"
        label = read_label(path)
        values = values_of(label)
        if unknown := [value for value in values if value not in self.names and value not in self.void]:
            raise ValueError(f"label {path} has the value {unknown[0]}, which is no class")
        image = self._picture(str(key))
        if (size := image_size(image)) != label.shape:
            raise ValueError(f"label {path} is of size {list(label.shape)}, its image of {list(size)}")
        classes = self._classes(values)
        masks = torch.zeros(len(classes), *label.shape, dtype=torch.bool)
        for mask, same in zip(masks, classes, strict=True):
            mask[:] = torch.from_numpy(np.isin(label, same))
        void = torch.from_numpy(np.isin(label, list(self.void)))
        return QuestionedImage(image, str(key), masks, len(masks), self._questions(values), void)

    def _picture(self, stem: str) -> Path:
        try:
            return self.images.find(f"{stem}.jpg")
        except FileNotFoundError:
            # If labels and images share a folder, the .png there is the label.
            path = next((root / f"{stem}.png" for root in self.images.roots if root != self.source), None)
            if path is None or not path.is_file():
                raise
            return path


class Ade20kDataset(SemanticDataset):
    """Samples of ADE20K. Splits: training or validation, or short, train or val."""

    def __init__(self, root: str | Path, split: str = "validation") -> None:
        split = _long_split(split)
        choices = [f"{home}annotations/{split}" for home in ("", "ade20k/", "ADEChallengeData2016/")]
        labels = find_one(Path(root), choices, f"ADE20K labels of {split}", _ADE_PAGE)
        images = Images([labels.parent.parent / "images" / split], _ADE_PAGE)
        super().__init__(labels, images, dict(enumerate(ADE20K, 1)), (0, _UNLABELLED))


class CocoStuffDataset(SemanticDataset):
    """Samples of COCO-Stuff. Splits: train2017 or val2017, or short, train or val.

    Args:
        root, split: see the top of the file.
        every_class: all 171 classes, also those with a dash in their name, which LISA ignores.
    """

    def __init__(self, root: str | Path, split: str = "val2017", every_class: bool = False) -> None:
        root, split = Path(root), coco_split(split)
        homes = ("cocostuff", "stuffthingmaps", "stuffthingmaps_trainval2017", "../cocostuff", ".")
        labels = find_one(root, [f"{home}/{split}" for home in homes], f"COCO-Stuff labels of {split}", _STUFF_PAGE)
        pictures = folders(root, split, f"images/{split}")
        if next(labels.glob("*.jpg"), None):  # beside the labels, as in copies made for LISA
            pictures.append(labels)
        images = Images(pictures, _STUFF_PAGE)
        names = dict(enumerate(COCO_STUFF))
        void = [value for value, name in names.items() if "-" in name and not every_class]
        super().__init__(labels, images, names, (*void, _UNLABELLED))


class VistasDataset(SemanticDataset):
    """Samples of Mapillary Vistas v2.0. Splits: training or validation, or short, train or val."""

    def __init__(self, root: str | Path, split: str = "validation") -> None:
        split, name = _long_split(split), "config_v2.0.json"
        config = find_one(Path(root), [name, f"mapillary/{name}"], f"configuration {name}", _VISTAS_PAGE)
        home = config.parent / split
        labels = find_one(home, ["v2.0/labels"], f"Vistas labels of {split}", _VISTAS_PAGE)
        names, not_evaluated = _vistas_classes(config)
        super().__init__(labels, Images([home / "images"], _VISTAS_PAGE), names, (*not_evaluated, _UNLABELLED))


def _long_split(split: str) -> str:
    return {"train": "training", "val": "validation"}.get(split, split)


def _vistas_classes(config: Path) -> tuple[dict[int, str], list[int]]:
    """Names by place in the configuration, and places of the classes that are not evaluated."""
    content = read_json(config)
    listed = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) and one.get("readable") for one in listed):
        raise ValueError(f"{config} has no list of labels, each with its readable name")
    if len(listed) > _UNLABELLED:
        raise ValueError(f"{config} has {len(listed)} labels; expected at most {_UNLABELLED}, since a pixel has 8 bits")
    names = {place: str(one["readable"]).strip().lower() for place, one in enumerate(listed)}
    return names, [place for place, one in enumerate(listed) if one.get("evaluate") is False]
