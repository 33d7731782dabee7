"""Visual Genome: objects as boxes, with names, attributes and relationships.

Source: https://homes.cs.washington.edu/~ranjay/visualgenome/api.html. About 108,000 images. CC BY 4.0. On disk, under
the root or its `vg/`: `image_data.json`, `objects.json` (v1.4), optionally `attributes.json` (v1.2) and
`relationships.json` (v1.4); the images in `VG_100K` and `VG_100K_2`.

Quirks: **boxes only: a mask of `VisualGenomeDataset` is a filled box**; `maskselect data build maskgroups-2m` makes
masks of them with SAM. There are no splits. About half of the images are COCO's, with a `coco_id` in `image_data.json`.
Objects were merged: `merged_object_ids` has the earlier numbers, which relationships and attributes still use. A box of
a relationship that is no object becomes an object. `name` and `names` both occur, and predicates have any case ("ON",
"on", "on a"). Boxes are clipped to the image; those without extent are left out.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskselect.backends.progress import track
from maskselect.data.coco_file import size_of
from maskselect.data.files import Images, find_one
from maskselect.data.index import Index, Key, Record, Section, open_index
from maskselect.data.questions import ImageQuestions, ImageTags, Question, QuestionedImage, indexed_tags
from maskselect.data.values import by_key

_PAGE = "get it from https://homes.cs.washington.edu/~ranjay/visualgenome/api.html"
_SENTENCE_WORDS = 6  # of a predicate or name; longer ones are sentences


@dataclass(frozen=True)
class Thing:
    """An object.

    Attributes:
        object_id: as published.
        names: lower case, at least one.
        box_xyxy: whole pixels within the image, right and bottom exclusive.
        attributes: lower case, without repeats.
    """

    object_id: int
    names: tuple[str, ...]
    box_xyxy: tuple[int, int, int, int]
    attributes: tuple[str, ...] = ()


class Relation(NamedTuple):
    """Subject and target as places among the things of the image, and the predicate in lower case."""

    subject: int
    predicate: str
    target: int


@dataclass(frozen=True)
class GenomeImage:
    """The annotations of an image. `size` is (H, W); `coco_id` is its number in COCO, or None."""

    image_id: int
    size: tuple[int, int]
    coco_id: int | None
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]


class VisualGenome:
    """The annotations by image.

    Args:
        root: see the top of the file.

    Raises:
        FileNotFoundError: the layout does not exist.
        ValueError: a file is damaged.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        self.home = next((base for base in (root, root / "vg") if (base / "objects.json").is_file()), root)
        self.images = self._open("image_data.json", "image")
        self.objects = self._open("objects.json", "objects")
        self._attributes = self._open_optional("attributes.json", "attributes")
        self._relations = self._open_optional("relationships.json", "relationships")
        folders = [base / name for base in (self.home, root) for name in ("VG_100K", "VG_100K_2", "images")]
        self.pictures = Images(folders, _PAGE)

    def image_ids(self) -> list[int]:
        """All images with objects, in the order of the file."""
        return [int(key) for key in self.objects.keys("objects")]

    def picture(self, image_id: int) -> Path:
        """The file of an image. Raises FileNotFoundError if it does not exist."""
        return self.pictures.find(f"{image_id}.jpg")

    def coco_id(self, image_id: int) -> int | None:
        """The image's number in COCO; None if it is not from COCO. Raises ValueError for another value."""
        number = self.images.get("image", image_id).get("coco_id")
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise ValueError(f"image {image_id} in {self.images.source} has the coco_id {str(number)[:40]!r}")
        return number

    def describe(self, image_id: int) -> GenomeImage:
        """The annotations of an image. Raises ValueError, with file and image, for a damaged record."""
        record = self.images.get("image", image_id)
        try:
            size = size_of(record | {"id": image_id})
            things, places = _things(self.objects.get("objects", image_id).get("objects"), size)
            relations = _relations(_of(self._relations, "relationships", image_id), things, places, size)
            for row in _of(self._attributes, "attributes", image_id):
                place = places.get(row.get("object_id"))
                if place is not None:
                    attributes = (*things[place].attributes, *_texts(row.get("attributes")))
                    things[place] = replace(things[place], attributes=tuple(dict.fromkeys(attributes)))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"image {image_id} in {self.home}: {error}") from error
        return GenomeImage(image_id, size, self.coco_id(image_id), tuple(things), tuple(relations))

    def _open_optional(self, name: str, section: str) -> Index | None:
        return self._open(name, section) if (self.home / name).is_file() else None

    def _open(self, name: str, section: str) -> Index:
        file = find_one(self.home, [name], f"Visual Genome file {name}", _PAGE)
        # Some copies end within a record; its rest has no image.
        return open_index(file, {section: Section("", key="image_id", partial=True)})


class VisualGenomeDataset(ImageQuestions):
    """Samples of Visual Genome, split "all": one for each name of an image with all its objects, each attribute of a
    name, and each relationship, "the man holding the umbrella", with all its subjects. The masks are filled boxes.
    """

    def __init__(self, root: str | Path, split: str = "all") -> None:
        if split != "all":
            raise ValueError(f"Visual Genome has no split {split!r}; expected all")
        self.genome = VisualGenome(root)
        source = self.genome.home / "objects.json"
        # The questions also depend on the other files.
        others = [source.with_name(f"{name}.json") for name in ("attributes", "relationships")]
        states = [(file.name, file.stat()) for file in others if file.is_file()]
        stamp = f"1 {[(name, state.st_size, state.st_mtime_ns) for name, state in states]}"
        rows = indexed_tags(self.genome.objects, self._all_tags, stamp)
        super().__init__(source, ((key, tags) for key, tags, _ in rows), "car")

    def _all_tags(self) -> Iterator[ImageTags]:
        ids = self.genome.image_ids()
        for image_id in track(ids, len(ids), "Sorting objects.json", "images"):
            yield image_id, "".join(question.tag for question in questions(self.genome.describe(image_id))), ""

    def _read(self, key: Key) -> QuestionedImage:
        image = self.genome.describe(int(key))
        picture = self.genome.picture(int(key))
        return QuestionedImage(picture, str(key), box_masks(image), len(image.things), questions(image))


def box_masks(image: GenomeImage) -> Tensor:
    """The boxes of all things, filled: (N, H, W) bool."""
    masks = torch.zeros(len(image.things), *image.size, dtype=torch.bool)
    for row, thing in zip(masks, image.things, strict=True):
        x0, y0, x1, y1 = thing.box_xyxy
        row[y0:y1, x0:x1] = True
    return masks


def questions(image: GenomeImage) -> list[Question]:
    """All questions about an image: names, then attributes of a name, then relationships."""
    names: dict[str, list[int]] = {}
    attributes: dict[tuple[str, str], list[int]] = {}
    relations: dict[str, list[int]] = {}
    for place, thing in enumerate(image.things):
        for name in thing.names:
            names.setdefault(name, []).append(place)
            for attribute in thing.attributes:
                attributes.setdefault((attribute, name), []).append(place)
    for subject, predicate, target in image.relations:
        key = f"the {image.things[subject].names[0]} {predicate} the {image.things[target].names[0]}"
        relations.setdefault(key, []).append(subject)
    result = [Question("c", name, name, tuple(places)) for name, places in names.items()]
    for (attribute, name), places in attributes.items():
        text = f"{attribute} {name}"
        result.append(Question("a", text, text, tuple(places), "attribute"))
    for text, places in relations.items():
        result.append(Question("r", text, text, tuple(dict.fromkeys(places)), "interaction"))
    return result


def _things(records: Any, size: tuple[int, int]) -> tuple[list[Thing], dict[Any, int]]:
    """The objects of an image, and the place of each number, present or merged."""
    if not isinstance(records, list):
        raise ValueError(f"objects is {str(records)[:40]!r}; expected a list")
    things: list[Thing] = []
    places: dict[Any, int] = {}
    by_key(records, lambda record: record["object_id"], "objects", "object", "object_id")
    for record in records:
        place = _add(record, things, size)
        if place is not None:
            for number in (*_merged(record), record["object_id"]):
                places[number] = place
    return things, places


def _relations(
    records: Sequence[Record], things: list[Thing], places: dict[Any, int], size: tuple[int, int]
) -> list[Relation]:
    """The relationships, once each. New boxes are added to `things`."""
    relations: dict[Relation, None] = {}
    for record in records:
        predicate = _words(record.get("predicate"))
        ends = [_end(record.get(role), things, places, size) for role in ("subject", "object")]
        if predicate and ends[0] is not None and ends[1] is not None and ends[0] != ends[1]:
            relations[Relation(ends[0], predicate, ends[1])] = None
    return list(relations)


def _end(record: Any, things: list[Thing], places: dict[Any, int], size: tuple[int, int]) -> int | None:
    if not isinstance(record, dict):
        raise ValueError(f"a relationship has the end {str(record)[:40]!r}; expected an object")
    number = record.get("object_id")
    if number not in places:
        place = _add(record, things, size)
        if place is None:
            return None
        places[number] = place
    return places[number]


def _add(record: Record, things: list[Thing], size: tuple[int, int]) -> int | None:
    """Add a thing and return its place; None if it has no name, or no extent inside the image."""
    names = _texts(record["names"] if "names" in record else [record.get("name")])
    box = [record.get(side) for side in "xywh"]
    sides = [side for side in box if isinstance(side, int | float) and not isinstance(side, bool)]
    if len(sides) < 4 or not all(map(math.isfinite, sides)):
        raise ValueError(f"object {record.get('object_id')!r} has the box {box}; expected numbers x, y, w, h")
    x, y, w, h = sides
    (height, width), corners = size, (x, y, x + w, y + h)
    x0, y0, x1, y1 = (int(min(max(c, 0), limit)) for c, limit in zip(corners, (width, height) * 2, strict=True))
    if not names or x0 >= x1 or y0 >= y1:
        return None
    things.append(Thing(int(record["object_id"]), names, (x0, y0, x1, y1)))
    return len(things) - 1


def _merged(record: Record) -> list[Any]:
    merged = record.get("merged_object_ids") or []
    return merged if isinstance(merged, list) else []


def _texts(values: Any) -> tuple[str, ...]:
    listed = values if isinstance(values, list) else []
    return tuple(dict.fromkeys(text for value in listed if (text := _words(value))))


def _words(value: Any) -> str:
    """A name in lower case; "" for an empty one or a sentence."""
    words = str(value).lower().split() if isinstance(value, str) else []
    return " ".join(words) if len(words) <= _SENTENCE_WORDS else ""


def _of(index: Index | None, section: str, image_id: int) -> Sequence[Record]:
    """The records of an image; empty if the file does not have it."""
    if index is None or not index.has(section, image_id):
        return []
    records = index.get(section, image_id).get(section)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{section} is {str(records)[:40]!r}; expected a list of objects")
    return records
