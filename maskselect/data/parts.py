"""PACO-LVIS and PASCAL-Part: objects, their parts and attributes.

**PACO-LVIS** (https://github.com/facebookresearch/paco, annotations at
https://dl.fbaipublicfiles.com/paco/annotations/paco_lvis_v1.zip, licence in the repository; images COCO's):
45,790 / 2,410 / 9,443 images of train, val and test with 217,117 / 10,794 / 45,861 masks of 75 kinds of objects and
395,071 / 20,945 / 86,041 of 456 kinds of parts; 55 attributes. On disk, under the root, its `annotations/`,
`paco/annotations/` or `vlpart/paco/annotations/` (LISA's layout): `paco_lvis_v1_{split}.json`; an image's `file_name`
holds its folder (`train2017/….jpg`) and is looked for in `coco/` of the root and of the folders above it.
Quirks: a category is `object` or `object:part`, with senses in brackets, which are removed. Only some masks have
attributes: a question about an attribute ignores masks for which it is unknown (`unknown_…`, or no attribute of that
type). Attributes called `other(…)` give no question.

**PASCAL-Part** as VLPart makes it (https://github.com/facebookresearch/VLPart, from
https://roozbehm.info/pascal-parts/pascal-parts.html; images PASCAL VOC 2010, under their Flickr terms): the training
images, 93 kinds of parts. On disk, under the root, its `pascal_part/` or `vlpart/pascal_part/`: `{split}.json` (train
is what the script makes) and `VOCdevkit/VOC2010/JPEGImages/`.
Quirks: every category is `object:part`, objects themselves have no masks; VOC writes `pottedplant` and `tvmonitor`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from maskselect.data.coco import CocoQuestions, both_folders, by_category
from maskselect.data.files import Images, find_one
from maskselect.data.index import Key, Record, Section
from maskselect.data.questions import Question
from maskselect.data.values import key_of, names_of

_PACO_PAGE = "get it from https://dl.fbaipublicfiles.com/paco/annotations/paco_lvis_v1.zip"
_PASCAL_PAGE = "it is made by tools/pascal_part_mat2json.py of https://github.com/facebookresearch/VLPart"
_WORDS = {"pottedplant": "potted plant", "tvmonitor": "tv monitor", "diningtable": "dining table"}
_TYPES: Mapping[str, frozenset[str]] = {
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
"""Attributes of PACO by type; all others are colours."""


def phrase(category: str) -> str:
    """A category as a prompt.

    >>> phrase("remote_control:back_cover"), phrase("car_(automobile):wheel"), phrase("tape_(sticky_cloth_or_paper)")
    ('the back cover of the remote control', 'the wheel of the car', 'tape')
    """
    whole, _, part = category.partition(":")
    return f"the {_plain(part)} of the {_plain(whole)}" if part.strip() else _plain(whole)


def phrase_with(category: str, attribute: str) -> str:
    """A category with an attribute as a prompt.

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
    """Samples of PACO-LVIS: one per image and category of objects (kind "category": "mug"), category of parts (kind
    "part": "the handle of the mug"), and category with an attribute (kind "attribute": "red mug").

    Args:
        root: see the top of the file.
        split: train, val or test.
        attributes: include those of kind "attribute".
    """

    def __init__(self, root: str | Path, split: str = "val", attributes: bool = True) -> None:
        root, name = Path(root), f"paco_lvis_v1_{split}.json"
        places = ("", "annotations/", "paco/annotations/", "vlpart/paco/annotations/", "paco/")
        file = find_one(root, [place + name for place in places], f"PACO-LVIS file of {split}", _PACO_PAGE)
        images = Images(both_folders(root, *root.absolute().parents[:3]), "they are COCO's, https://cocodataset.org")
        super().__init__(file, images, "cpa" if attributes else "cp", more={"attribute": Section("attributes")})

    def _readable(self) -> dict[Key, str]:
        # Phrases with an attribute need the raw names of categories.
        self.attributes = names_of(self.coco.index.all("attribute"), f"{self.coco.path}: attribute")
        return super()._readable()

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        groups = by_category(annotations, pool, self.names)
        questions = []
        for key, group in groups.items():
            name, places = self.names[key], tuple(group.places)
            kind = "part" if ":" in name else "category"
            questions.append(Question(kind[0], str(key), phrase(name), places, kind, tuple(group.crowds)))
        for key, group in groups.items():
            questions += self._about_attributes(key, annotations, group.places)
        return questions

    def _picture(self, image: Record) -> Path:
        return self.images.find(str(image.get("file_name") or "").rpartition("/")[2])

    def _about_attributes(self, category: Key, annotations: list[Record], places: list[int]) -> list[Question]:
        """One question for each attribute that an annotation of the category has."""
        attributes = {place: self._attributes(annotations[place]) for place in places}
        questions = []
        for attribute in dict.fromkeys(key for keys in attributes.values() for key in keys):
            name = self.attributes[attribute]
            if name.startswith("other("):
                continue
            kind = _type(name)
            targets = tuple(place for place in places if attribute in attributes[place])
            unsure = tuple(p for p in places if not self._is_known(annotations[p], attributes[p], kind))
            text = phrase_with(self.names[category], name)
            questions.append(Question("a", f"{category}:{attribute}", text, targets, "attribute", unsure))
        return questions

    def _attributes(self, annotation: Record) -> list[Key]:
        listed = annotation.get("attribute_ids") or []
        if not isinstance(listed, list) or not all(isinstance(one, int | float | str) for one in listed):
            raise ValueError(f"annotation {annotation.get('id')!r} has the attributes {str(listed)[:40]}; expected ids")
        keys = [key_of(one) for one in listed]
        if unknown := [key for key in keys if key not in self.attributes]:
            raise ValueError(f"annotation {annotation.get('id')!r} has the attribute {unknown[0]!r}, which has no name")
        return keys

    def _is_known(self, annotation: Record, attributes: list[Key], kind: str) -> bool:
        """Whether an annotation is labelled with attributes of a type."""
        return not annotation.get(f"unknown_{kind}") and any(_type(self.attributes[one]) == kind for one in attributes)


def _type(attribute: str) -> str:
    return next((kind for kind, names in _TYPES.items() if attribute in names), "color")


class PascalPartDataset(CocoQuestions):
    """Samples of PASCAL-Part: one per image and category of parts ("the leg of the dog"), kind "part".

    Splits: train.
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
        return [replace(question, kind="part") for question in super()._questions(image, annotations, pool)]
