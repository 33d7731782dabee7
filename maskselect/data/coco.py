"""COCO instances and EntitySeg: categories of things, or everything that is there, asked for by name.

**COCO 2017** (https://cocodataset.org/#download): 118,287 images of train2017 and 5,000 of val2017, with about 860,000
and 36,800 masks of 80 categories. Annotations CC BY 4.0, photographs under their Flickr terms. On disk, under the root
or its `coco/`: `annotations/instances_{split}.json` and the images in `{split}/` or `images/{split}/`.
Quirks: a crowd (`iscrowd`, run lengths instead of polygons) is not one thing, so it is neither in the pool nor a
target; where its category is asked for, no measure counts its pixels (`ignore`). Images without annotations are asked
nothing.

**EntitySeg** (https://github.com/adobe-research/EntitySeg-Dataset, release v1.0; images also on Hugging Face,
`qqlu1992/Adobe_EntitySeg`): 33,227 images in three subsets of 11,580, 11,598 and 10,049. Adobe research licence,
non-commercial. On disk, under the root or its `entityseg/`:
`annotations/entity_segmentation/entityv2_{subset}_entity_{split}.json` (or `…_lr.json`),
`annotations/instance_segmentation/entityv2_01_instances_{split}.json`, and the images in `images/` (or `images_lr/`,
the shorter side 800 pixels), in it `entity_01_11580/`, `entity_02_11598/`, `entity_03_10049/`.
Quirks: entities are all that can be seen, things and stuff, and are asked for without their names; masks of 150 named
categories are in a file of their own, for subset 01 alone, where an ending `_ot` means "other".
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from maskselect.backends.progress import track
from maskselect.data.asked import Asked, Asks, ImageQuestions, Question, asked_of
from maskselect.data.coco_file import CocoFile, decode_masks, size_of
from maskselect.data.files import Images, find_one
from maskselect.data.index import Key, Record, Section


class CocoQuestions(ImageQuestions):
    """Questions about the annotations of a COCO file; what is asked, a subclass says in `_questions`.

    wanted: tags of the questions that become samples.  part: only images whose `_part` this is.

    The pool is every annotation of the image that is not a crowd.
    Raises ValueError when the file asks nothing.
    """

    def __init__(
        self,
        file: Path,
        images: Images,
        wanted: str = "c",
        part: str | None = None,
        names: Mapping[Key, str] | None = None,
        more: Mapping[str, Section] | None = None,
    ) -> None:
        self.coco, self.images = CocoFile(file, more), images
        self.names = dict(names or {}) or self._readable()
        self.coco.refuse_same_names(self.names)
        stamp = f"1 {type(self).__name__} {list(self.names.items())}"
        found = asked_of(self.coco.index, self._asks, stamp)
        super().__init__(file, ((key, tags) for key, tags, own in found if part in (None, own)), wanted)
        if not len(self):
            self.coco.need("annotation")
            chosen = "" if part is None else f" of the part {part!r}"
            raise ValueError(
                f"{file} asks nothing{chosen}: no image has an annotation, other than a crowd, of a category that is "
                "asked for"
            )

    def picture(self, key: Key) -> Path:
        """The file of an image. Raises FileNotFoundError when no folder has it."""
        return self._picture(self.coco.image(key))

    def _readable(self) -> dict[Key, str]:
        """Names of categories by id, as a person would write them."""
        return self.coco.category_names()

    def _part(self, image: Record) -> str:
        """To which part of the data an image belongs, where one file holds several."""
        return ""

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        """What is asked of an image. annotations: those of the pool first, then the crowds."""
        groups = by_category(annotations, pool, self.names)
        return [
            Question("c", str(key), self.names[key], tuple(group.places), unsure=tuple(group.crowds))
            for key, group in groups.items()
        ]

    def _masks(self, annotations: list[Record], size: tuple[int, int]) -> Tensor:
        return decode_masks(annotations, size)

    def _picture(self, image: Record) -> Path:
        name = image.get("file_name") or str(image.get("coco_url", "")).rpartition("/")[2]
        return self.images.find(str(name))

    def _asks(self) -> Iterator[Asks]:
        keys = self.coco.index.keys("image")
        for key in track(keys, len(keys), f"Sorting {self.coco.path.name}", "images"):
            image = self.coco.image(key)
            yield key, "".join(question.tag for question in self._told(image)[0]), self._part(image)

    def _told(self, image: Record) -> tuple[list[Question], list[Record], int]:
        found = self.coco.annotations(image["id"])
        annotations = sorted(found, key=lambda annotation: bool(annotation["iscrowd"]))
        pool = sum(not annotation["iscrowd"] for annotation in found)
        try:
            return self._questions(image, annotations, pool), annotations, pool
        except (ValueError, TypeError) as error:
            raise ValueError(f"image {image['id']!r} in {self.coco.path}: {error}") from error

    def _read(self, key: Key) -> Asked:
        image = self.coco.image(key)
        questions, annotations, pool = self._told(image)
        try:
            picture = self._picture(image)
            masks = self._masks(annotations, size_of(image, picture))
            return Asked(picture, str(key), masks, pool, questions)
        except ValueError as error:
            raise ValueError(f"image {key!r} in {self.coco.path}: {error}") from error


class Group(NamedTuple):
    """Annotations of one category in one image: places of those in the pool, and of the crowds."""

    places: list[int]
    crowds: list[int]


def by_category(annotations: list[Record], pool: int, names: Mapping[Key, str]) -> dict[Key, Group]:
    """Annotations of an image by category, as the file names them first; without those that are only a crowd.

    pool: how many of them are no crowd; the crowds come behind.
    Raises ValueError for a category that `names` does not have.
    """
    groups: dict[Key, Group] = {}
    for place, annotation in enumerate(annotations):
        category = annotation.get("category_id")
        if not isinstance(category, int | str) or category not in names:
            told = f"annotation {annotation.get('id')!r} has the category {str(category)[:40]}"
            raise ValueError(f"{told}; expected one of the {len(names)} that the file lists")
        group = groups.setdefault(category, Group([], []))
        (group.places if place < pool else group.crowds).append(place)
    return {category: group for category, group in groups.items() if group.places}


def folders(root: Path, *names: str) -> list[Path]:
    """Where images may lie: under the root, its `coco/`, or beside the root."""
    return [base / name for base in (root, root / "coco", root.parent, root.parent / "coco") for name in names]


def both_folders(*roots: Path) -> list[Path]:
    """Where images of COCO 2017 may lie, of both splits: no name of one occurs in the other."""
    years = ("train2017", "val2017", "images/train2017", "images/val2017")
    return [folder for root in roots for folder in folders(root, *years)]


def coco_split(split: str) -> str:
    """The published name of a split: "val" is "val2017"."""
    return f"{split}2017" if split in ("train", "val") else split


class CocoDataset(CocoQuestions):
    """Samples of COCO instances: one for each image and category, whose targets are all its instances.

    root: see the top of the file.  split: train2017 or val2017, or short, train or val.

    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file.
    """

    def __init__(self, root: str | Path, split: str = "val2017") -> None:
        root, split = Path(root), coco_split(split)
        name, page = f"instances_{split}.json", "get it from https://cocodataset.org/#download"
        file = find_one(root, [f"annotations/{name}", f"coco/annotations/{name}", name], f"COCO file of {split}", page)
        super().__init__(file, Images(folders(root, split, f"images/{split}"), page))


class EntitySegDataset(CocoQuestions):
    """Samples of EntitySeg: one an image, "everything", whose targets are all its entities.

    root: see the top of the file.  split: train or val.
    named: instead one for each image and category of the 150 that are named, which subset 01 alone has.
    low_resolution: the reduced images and their masks.

    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        subset: str = "010203",
        named: bool = False,
        low_resolution: bool = False,
    ) -> None:
        self.named = named
        ending = "_lr" if low_resolution else ""
        name = f"entity_segmentation/entityv2_{subset}_entity_{split}{ending}.json"
        if named:
            name = f"instance_segmentation/entityv2_01_instances_{split}{ending}.json"
        page = "get it from https://github.com/adobe-research/EntitySeg-Dataset"
        homes = [f"{home}{part}{name}" for home in ("", "entityseg/") for part in ("annotations/", "")]
        file = find_one(Path(root), homes, f"EntitySeg file of {split}", page)
        tops = [base / f"images{ending}" for base in (Path(root), Path(root) / "entityseg")]
        # Released annotations name images with their folder; copies of single subsets do not.
        inner = [folder for top in tops for folder in sorted(top.glob("entity_*"))]
        super().__init__(file, Images([*tops, *inner], page))

    def _readable(self) -> dict[Key, str]:
        return {key: _entity_name(name) for key, name in super()._readable().items()}

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        if self.named:
            return super()._questions(image, annotations, pool)
        targets, crowds = tuple(range(pool)), tuple(range(pool, len(annotations)))
        return [Question("c", "", "everything", targets, kind="", unsure=crowds)] if pool else []


def _entity_name(name: str) -> str:
    words = name.strip().removesuffix("_ot").replace("_", " ")
    return f"other {words}" if name.strip().endswith("_ot") else words
