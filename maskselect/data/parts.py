"""PACO-LVIS and PASCAL-Part: objects, their parts, and what they look like.

**PACO-LVIS** (https://github.com/facebookresearch/paco, annotations at
https://dl.fbaipublicfiles.com/paco/annotations/paco_lvis_v1.zip, licence in the repository; images COCO's):
45,790 / 2,410 / 9,443 images of train, val and test with 217,117 / 10,794 / 45,861 masks of 75 kinds of objects and
395,071 / 20,945 / 86,041 of 456 kinds of parts; 55 attributes. On disk, under the root, its `annotations/`,
`paco/annotations/` or `vlpart/paco/annotations/` (LISA's layout): `paco_lvis_v1_{split}.json`; an image's `file_name`
holds its folder (`train2017/….jpg`) and is looked for in `coco/` of the root and of the folders above it.
Quirks: a category is `object` or `object:part`, with senses in brackets, which are left out. Attributes were told for
some of the masks only: where one is asked for, no measure counts the masks of which it was not told (`unknown_…`, or no
attribute of that sort). Attributes called `other(…)` are not asked for.

**PASCAL-Part** as VLPart makes it (https://github.com/facebookresearch/VLPart, from
https://roozbehm.info/pascal-parts/pascal-parts.html; images PASCAL VOC 2010, under their Flickr terms): the training
images, 93 kinds of parts. On disk, under the root, its `pascal_part/` or `vlpart/pascal_part/`: `{split}.json` (train
is what the script makes) and `VOCdevkit/VOC2010/JPEGImages/`.
Quirks: every category is `object:part`, objects themselves have no masks; VOC writes `pottedplant` and `tvmonitor`.
"""

from collections.abc import Mapping
from pathlib import Path

from maskselect.data.asked import Question
from maskselect.data.coco import CocoQuestions, both_folders, by_category
from maskselect.data.files import Images, find_one
from maskselect.data.index import Key, Record, Section
from maskselect.data.values import key_of, names_of

_PACO_PAGE = "get it from https://dl.fbaipublicfiles.com/paco/annotations/paco_lvis_v1.zip"
_PASCAL_PAGE = "it is made by tools/pascal_part_mat2json.py of https://github.com/facebookresearch/VLPart"
_WORDS = {"pottedplant": "potted plant", "tvmonitor": "tv monitor", "diningtable": "dining table"}
_SORTS: Mapping[str, frozenset[str]] = {
    "pattern_marking": frozenset({
        "plain", "striped", "dotted", "checkered", "woven", "studded", "perforated", "floral", "logo", "text",
        "other(pattern_marking)",
    }),
    "material": frozenset({
        "stone", "wood", "rattan", "fabric", "crochet", "wool", "leather", "velvet", "metal", "paper", "plastic",
        "glass", "ceramic", "other(material)",
    }),
    "transparency": frozenset({"opaque", "translucent", "transparent", "other(transparency)"}),
}  # fmt: skip
"""Attributes of PACO by sort; all others are colours."""


def phrase(category: str) -> str:
    """A category as it is asked for.

    >>> phrase("remote_control:back_cover"), phrase("car_(automobile):wheel"), phrase("tape_(sticky_cloth_or_paper)")
    ('the back cover of the remote control', 'the wheel of the car', 'tape')
    """
    whole, _, part = category.partition(":")
    return f"the {_plain(part)} of the {_plain(whole)}" if part.strip() else _plain(whole)


def phrase_with(category: str, attribute: str) -> str:
    """A category with an attribute.

    >>> phrase_with("mug", "dark_blue"), phrase_with("mug:handle", "red"), phrase_with("mug:handle", "logo")
    ('dark blue mug', 'the red handle of the mug', 'the handle with a logo of the mug')
    """
    whole, _, part = category.partition(":")
    thing = _plain(part if part.strip() else whole)
    behind = {"logo": "with a logo", "text": "with text"}.get(attribute)
    described = f"{thing} {behind}" if behind else f"{attribute.replace('_', ' ')} {thing}"
    return f"the {described} of the {_plain(whole)}" if part.strip() else described


def _plain(name: str) -> str:
    short = name.partition("_(")[0].replace("_", " ").strip()
    return _WORDS.get(short, short)


class PacoDataset(CocoQuestions):
    """Samples of PACO-LVIS: for each image one a category of objects ("mug"), one a category of parts ("the handle of
    the mug"), and one a category and attribute ("red mug", "the red handle of the mug").

    root: see the top of the file.  split: train, val or test.  attributes: with those of the third sort.

    Kinds are "category", "part" and "attribute".
    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file.
    """

    def __init__(self, root: str | Path, split: str = "val", attributes: bool = True) -> None:
        root, name = Path(root), f"paco_lvis_v1_{split}.json"
        places = ("", "annotations/", "paco/annotations/", "vlpart/paco/annotations/", "paco/")
        file = find_one(root, [place + name for place in places], f"PACO-LVIS file of {split}", _PACO_PAGE)
        images = Images(both_folders(root, *root.absolute().parents[:3]), "they are COCO's, https://cocodataset.org")
        super().__init__(file, images, "cpa" if attributes else "cp", more={"attribute": Section("attributes")})

    def _readable(self) -> dict[Key, str]:
        # The raw names are needed for phrases with an attribute, so they are made readable only when asked.
        self.attributes = names_of(self.coco.index.all("attribute"), f"{self.coco.path}: attribute")
        return super()._readable()

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        groups = by_category(annotations, pool, self.names)
        found = []
        for key, group in groups.items():
            name, places = self.names[key], tuple(group.places)
            kind = "part" if ":" in name else "category"
            found.append(Question(kind[0], str(key), phrase(name), places, kind, tuple(group.crowds)))
        for key, group in groups.items():
            found += self._of_attributes(key, annotations, group.places)
        return found

    def _picture(self, image: Record) -> Path:
        return self.images.find(str(image.get("file_name") or "").rpartition("/")[2])

    def _of_attributes(self, category: Key, annotations: list[Record], places: list[int]) -> list[Question]:
        """One question for each attribute that an annotation of the category has."""
        told = {place: self._attributes(annotations[place]) for place in places}
        found = []
        for attribute in dict.fromkeys(one for own in told.values() for one in own):
            name = self.attributes[attribute]
            if name.startswith("other("):
                continue
            targets = tuple(place for place in places if attribute in told[place])
            unsure = tuple(place for place in places if not self._tells(annotations[place], told[place], _sort(name)))
            text = phrase_with(self.names[category], name)
            found.append(Question("a", f"{category}:{attribute}", text, targets, "attribute", unsure))
        return found

    def _attributes(self, annotation: Record) -> list[Key]:
        listed = annotation.get("attribute_ids") or []
        if not isinstance(listed, list) or not all(isinstance(one, int | float | str) for one in listed):
            raise ValueError(f"annotation {annotation.get('id')!r} has the attributes {str(listed)[:40]}; expected ids")
        keys = [key_of(one) for one in listed]
        if unknown := [key for key in keys if key not in self.attributes]:
            raise ValueError(f"annotation {annotation.get('id')!r} has the attribute {unknown[0]!r}, which has no name")
        return keys

    def _tells(self, annotation: Record, attributes: list[Key], sort: str) -> bool:
        """Whether it was told which attributes of a sort an annotation has."""
        return not annotation.get(f"unknown_{sort}") and any(_sort(self.attributes[one]) == sort for one in attributes)


def _sort(attribute: str) -> str:
    return next((sort for sort, names in _SORTS.items() if attribute in names), "color")


class PascalPartDataset(CocoQuestions):
    """Samples of PASCAL-Part: one for each image and kind of part ("the leg of the dog"), kind "part".

    root: see the top of the file.  split: train.

    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        places = [f"{place}{split}.json" for place in ("pascal_part/", "vlpart/pascal_part/", "")]
        file = find_one(Path(root), places, f"PASCAL-Part file of {split}", _PASCAL_PAGE)
        bases = (file.parent, Path(root), Path(root).parent)
        names = ("VOCdevkit/VOC2010/JPEGImages", "VOC2010/JPEGImages", "JPEGImages")
        super().__init__(file, Images([base / name for base in bases for name in names], _PASCAL_PAGE))

    def _readable(self) -> dict[Key, str]:
        return {key: phrase(name) for key, name in super()._readable().items()}

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        return [
            Question(one.tag, one.key, one.text, one.targets, "part", one.unsure)
            for one in super()._questions(image, annotations, pool)
        ]
