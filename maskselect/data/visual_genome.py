"""Visual Genome: objects with names, attributes and relationships, all of them as boxes.

Source: https://homes.cs.washington.edu/~ranjay/visualgenome/api.html. About 108,000 images. CC BY 4.0. On disk, under
the root or its `vg/`: `image_data.json`, `objects.json` (v1.4), and where they are there `attributes.json` (v1.2) and
`relationships.json` (v1.4); the images in `VG_100K` and `VG_100K_2`.

Quirks: **boxes only: a mask of `VisualGenomeDataset` is a filled box**; `maskselect data build maskgroups-2m` makes
masks of them by SAM. There are no splits. About half of the images are COCO's, and `coco_id` in `image_data.json` says
which. One object was often drawn several times: `merged_object_ids` names the numbers that it had before, and
relationships and attributes still speak of those. A relationship may speak of a box that no object has; it is then an
object of its own. `name` and `names` are both in use, and predicates are written in any case ("ON", "on", "on a").
Boxes reach outside the image, or have no extent: they are cut, and left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskselect.backends.progress import track
from maskselect.data.asked import Asked, Asks, ImageQuestions, Question, asked_of
from maskselect.data.coco_file import size_of
from maskselect.data.files import Images, find_one
from maskselect.data.index import Index, Key, Record, Section, open_index
from maskselect.data.values import by_key

_PAGE = "get it from https://homes.cs.washington.edu/~ranjay/visualgenome/api.html"
_SENTENCE_WORDS = 6  # of a predicate or name; what is longer is a sentence somebody typed into the field


@dataclass(frozen=True)
class Thing:
    """An object.

    names: lower case, at least one.  box_xyxy: whole pixels within the image, right and bottom exclusive.
    attributes: lower case, without repeats.
    """

    object_id: int
    names: tuple[str, ...]
    box_xyxy: tuple[int, int, int, int]
    attributes: tuple[str, ...] = ()


class Relation(NamedTuple):
    """`subject` `predicate` `target`: places among the things of the image. The predicate is in lower case."""

    subject: int
    predicate: str
    target: int


@dataclass(frozen=True)
class GenomeImage:
    """What is known of an image. size: (H, W). coco_id: its number in COCO, or None."""

    image_id: int
    size: tuple[int, int]
    coco_id: int | None
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]


class VisualGenome:
    """The annotations, image by image.

    root: see the top of the file.
    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        self.home = next((base for base in (root, root / "vg") if (base / "objects.json").is_file()), root)
        self.images = self._open("image_data.json", "image")
        self.objects = self._open("objects.json", "objects")
        self._attributes = self._open_where_there("attributes.json", "attributes")
        self._relations = self._open_where_there("relationships.json", "relationships")
        folders = [base / name for base in (self.home, root) for name in ("VG_100K", "VG_100K_2", "images")]
        self.pictures = Images(folders, _PAGE)

    def image_ids(self) -> list[int]:
        """All images that have objects, in the order of the objects' file."""
        return [int(key) for key in self.objects.keys("objects")]

    def picture(self, image_id: int) -> Path:
        """The file of an image. Raises FileNotFoundError when it is not there."""
        return self.pictures.find(f"{image_id}.jpg")

    def coco_id(self, image_id: int) -> int | None:
        """The image's number in COCO, or None where it is not from there. Raises ValueError for another value."""
        found = self.images.get("image", image_id).get("coco_id")
        if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
            raise ValueError(f"image {image_id} in {self.images.source} has the coco_id {str(found)[:40]!r}")
        return found

    def describe(self, image_id: int) -> GenomeImage:
        """Everything about an image. Raises ValueError, naming file and image, for a damaged record."""
        record = self.images.get("image", image_id)
        try:
            size = size_of(record | {"id": image_id})
            things, places = _things(self.objects.get("objects", image_id).get("objects"), size)
            relations = _relations(_of(self._relations, "relationships", image_id), things, places, size)
            for row in _of(self._attributes, "attributes", image_id):
                place = places.get(row.get("object_id"))
                if place is not None:
                    told = (*things[place].attributes, *_texts(row.get("attributes")))
                    things[place] = replace(things[place], attributes=tuple(dict.fromkeys(told)))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"image {image_id} in {self.home}: {error}") from error
        return GenomeImage(image_id, size, self.coco_id(image_id), tuple(things), tuple(relations))

    def _open_where_there(self, name: str, section: str) -> Index | None:
        return self._open(name, section) if (self.home / name).is_file() else None

    def _open(self, name: str, section: str) -> Index:
        file = find_one(self.home, [name], f"Visual Genome file {name}", _PAGE)
        # Copies are about that were cut in the middle of a record; what is left of it belongs to no image.
        return open_index(file, {section: Section("", key="image_id", partial=True)})


class VisualGenomeDataset(ImageQuestions):
    """Samples of Visual Genome; the masks are filled boxes, see the top of the file.

    root: see there.  split: "all"; there are no others.
    ask: any of "c", each name of an image with all objects that have it; "a", each attribute of a name; "r", each
        relationship, "the man holding the umbrella", with all of its subjects.

    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file or another split.
    """

    def __init__(self, root: str | Path, split: str = "all", ask: str = "car") -> None:
        if split != "all":
            raise ValueError(f"Visual Genome has no split {split!r}; expected all")
        self.genome = VisualGenome(root)
        source = self.genome.home / "objects.json"
        # What is asked depends on the other files too.
        files = [
            file for name in ("attributes", "relationships") if (file := source.with_name(f"{name}.json")).is_file()
        ]
        stamp = f"1 {[(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]}"
        found = asked_of(self.genome.objects, self._asks, stamp)
        super().__init__(source, ((key, tags) for key, tags, _ in found), ask)

    def _asks(self) -> Iterator[Asks]:
        ids = self.genome.image_ids()
        for image_id in track(ids, len(ids), "Sorting objects.json", "images"):
            yield image_id, "".join(question.tag for question in questions(self.genome.describe(image_id))), ""

    def _read(self, key: Key) -> Asked:
        image = self.genome.describe(int(key))
        return Asked(self.genome.picture(int(key)), str(key), box_masks(image), len(image.things), questions(image))


def box_masks(image: GenomeImage) -> Tensor:
    """The boxes of all things, filled: (N, H, W) bool."""
    masks = torch.zeros(len(image.things), *image.size, dtype=torch.bool)
    for row, thing in zip(masks, image.things, strict=True):
        x0, y0, x1, y1 = thing.box_xyxy
        row[y0:y1, x0:x1] = True
    return masks


def questions(image: GenomeImage) -> list[Question]:
    """What can be asked of an image: names, then attributes of a name, then relationships."""
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
    asked = [Question("c", name, name, tuple(places)) for name, places in names.items()]
    for (attribute, name), places in attributes.items():
        text = f"{attribute} {name}"
        asked.append(Question("a", text, text, tuple(places), "attribute"))
    for text, places in relations.items():
        asked.append(Question("r", text, text, tuple(dict.fromkeys(places)), "interaction"))
    return asked


def _things(records: Any, size: tuple[int, int]) -> tuple[list[Thing], dict[Any, int]]:
    """The objects of an image, and the place of each number that one of them has or had."""
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
    """The relationships, once each; boxes that no object has join `things`."""
    found: dict[Relation, None] = {}
    for record in records:
        predicate = _words(record.get("predicate"))
        ends = [_end(record.get(role), things, places, size) for role in ("subject", "object")]
        if predicate and ends[0] is not None and ends[1] is not None and ends[0] != ends[1]:
            found[Relation(ends[0], predicate, ends[1])] = None
    return list(found)


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
    """The place of a new thing; None where it has no name, or no extent inside the image."""
    names = _texts(record["names"] if "names" in record else [record.get("name")])
    told = [record.get(side) for side in "xywh"]
    sides = [side for side in told if isinstance(side, int | float) and not isinstance(side, bool)]
    if len(sides) < 4 or not all(map(math.isfinite, sides)):
        raise ValueError(f"object {record.get('object_id')!r} has the box {told}; expected numbers x, y, w, h")
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
    """A name as it is asked for; nothing where it is empty, or a whole sentence."""
    words = str(value).lower().split() if isinstance(value, str) else []
    return " ".join(words) if len(words) <= _SENTENCE_WORDS else ""


def _of(index: Index | None, section: str, image_id: int) -> Sequence[Record]:
    """The records of an image, none where the file does not have it."""
    if index is None or not index.has(section, image_id):
        return []
    found: Mapping[str, Any] = index.get(section, image_id)
    records = found.get(section)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{section} is {str(records)[:40]!r}; expected a list of objects")
    return records
