"""COCO instances and EntitySeg: categories of things by name, or everything in the image.

**COCO 2017** (https://cocodataset.org/#download): 118,287 images of train2017 and 5,000 of val2017, with about 860,000
and 36,800 masks of 80 categories. Annotations CC BY 4.0, photographs under their Flickr terms. On disk, under the root
or its `coco/`: `annotations/instances_{split}.json` and the images in `{split}/` or `images/{split}/`.
Quirks: a crowd (`iscrowd`, run lengths instead of polygons) is not one thing, so it is neither in the pool nor a
target, and its pixels are ignored in questions about its category. Images without annotations have no questions.

**EntitySeg** (https://github.com/adobe-research/EntitySeg-Dataset, release v1.0; images also on Hugging Face,
`qqlu1992/Adobe_EntitySeg`): 33,227 images in three subsets of 11,580, 11,598 and 10,049. Adobe research licence,
non-commercial. On disk, under the root or its `entityseg/`:
`annotations/entity_segmentation/entityv2_010203_entity_{split}.json`, and the images in `images/`, in it
`entity_01_11580/`, `entity_02_11598/`, `entity_03_10049/`.
Quirks: entities are all visible things and stuff, without names.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from maskselect.backends.progress import track
from maskselect.data.coco_file import CocoFile, decode_masks, size_of
from maskselect.data.files import Images, find_one
from maskselect.data.index import Key, Record, Section
from maskselect.data.questions import ImageQuestions, ImageTags, Question, QuestionedImage, indexed_tags


class CocoQuestions(ImageQuestions):
    """Questions about the annotations of a COCO file. The pool is every annotation that is not a crowd.

    A subclass defines the questions in `_questions`.

    Args:
        file: the annotations.
        images: where the images are.
        tags: tags of the questions that become samples.
        part: only images with this `_part`.
        names: names of categories by id, instead of those in the file.
        more: further sections of the file.

    Raises:
        ValueError: the file is damaged, or has no question.
    """

    def __init__(
        self,
        file: Path,
        images: Images,
        tags: str = "c",
        part: str | None = None,
        names: Mapping[Key, str] | None = None,
        more: Mapping[str, Section] | None = None,
    ) -> None:
        self.coco, self.images = CocoFile(file, more), images
        self.names = dict(names or {}) or self._readable()
        self.coco.refuse_same_names(self.names)
        stamp = f"1 {type(self).__name__} {list(self.names.items())}"
        rows = indexed_tags(self.coco.index, self._all_tags, stamp)
        super().__init__(file, ((key, letters) for key, letters, its_part in rows if part in (None, its_part)), tags)
        if not len(self):
            self.coco.need("annotation")
            chosen = "" if part is None else f" of the part {part!r}"
            raise ValueError(
                f"{file} asks nothing{chosen}: no image has an annotation, other than a crowd, of a category that is "
                "asked for"
            )

    def picture(self, key: Key) -> Path:
        """The file of an image. Raises FileNotFoundError if no folder has it."""
        return self._picture(self.coco.image(key))

    def _readable(self) -> dict[Key, str]:
        """Names of categories by id, as in a prompt."""
        return self.coco.category_names()

    def _part(self, image: Record) -> str:
        """The part of the data to which an image belongs, if the file has several."""
        return ""

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        """The questions about an image. `annotations` has the `pool` ones first, then the crowds."""
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

    def _all_tags(self) -> Iterator[ImageTags]:
        keys = self.coco.index.keys("image")
        for key in track(keys, len(keys), f"Sorting {self.coco.path.name}", "images"):
            image = self.coco.image(key)
            yield key, "".join(question.tag for question in self._described(image)[0]), self._part(image)

    def _described(self, image: Record) -> tuple[list[Question], list[Record], int]:
        """The questions about an image, its annotations with the crowds last, and the size of the pool."""
        annotations = sorted(self.coco.annotations(image["id"]), key=lambda annotation: bool(annotation["iscrowd"]))
        pool = sum(not annotation["iscrowd"] for annotation in annotations)
        try:
            return self._questions(image, annotations, pool), annotations, pool
        except (ValueError, TypeError) as error:
            raise ValueError(f"image {image['id']!r} in {self.coco.path}: {error}") from error

    def _read(self, key: Key) -> QuestionedImage:
        image = self.coco.image(key)
        questions, annotations, pool = self._described(image)
        try:
            picture = self._picture(image)
            masks = self._masks(annotations, size_of(image, picture))
            return QuestionedImage(picture, str(key), masks, pool, questions)
        except ValueError as error:
            raise ValueError(f"image {key!r} in {self.coco.path}: {error}") from error


class Group(NamedTuple):
    """Annotations of a category in an image: places in the pool, and places of crowds."""

    places: list[int]
    crowds: list[int]


def by_category(annotations: list[Record], pool: int, names: Mapping[Key, str]) -> dict[Key, Group]:
    """Annotations of an image by category, in order of the first one; without categories that are only a crowd.

    Args:
        annotations: crowds last.
        pool: number of annotations that are no crowd.
        names: names of categories.

    Raises:
        ValueError: a category is not in `names`.
    """
    groups: dict[Key, Group] = {}
    for place, annotation in enumerate(annotations):
        category = annotation.get("category_id")
        if not isinstance(category, int | str) or category not in names:
            raise ValueError(
                f"annotation {annotation.get('id')!r} has the category {str(category)[:40]}; expected one of the "
                f"{len(names)} that the file lists"
            )
        group = groups.setdefault(category, Group([], []))
        (group.places if place < pool else group.crowds).append(place)
    return {category: group for category, group in groups.items() if group.places}


def folders(root: Path, *names: str) -> list[Path]:
    """Possible image folders: under the root, its `coco/`, or beside the root."""
    return [base / name for base in (root, root / "coco", root.parent, root.parent / "coco") for name in names]


def both_folders(*roots: Path) -> list[Path]:
    """Possible folders of the images of both splits of COCO 2017. The splits share no file name."""
    years = ("train2017", "val2017", "images/train2017", "images/val2017")
    return [folder for root in roots for folder in folders(root, *years)]


def coco_split(split: str) -> str:
    """The published name of a split: "val" is "val2017"."""
    return f"{split}2017" if split in ("train", "val") else split


class CocoDataset(CocoQuestions):
    """Samples of COCO instances: one per image and category, whose targets are all its instances.

    Splits: train2017 or val2017, or short, train or val.
    """

    def __init__(self, root: str | Path, split: str = "val2017") -> None:
        root, split = Path(root), coco_split(split)
        name, page = f"instances_{split}.json", "get it from https://cocodataset.org/#download"
        file = find_one(root, [f"annotations/{name}", f"coco/annotations/{name}", name], f"COCO file of {split}", page)
        super().__init__(file, Images(folders(root, split, f"images/{split}"), page))


class EntitySegDataset(CocoQuestions):
    """Samples of EntitySeg: one per image, "everything", whose targets are all its entities. Splits: train or val."""

    def __init__(self, root: str | Path, split: str = "val") -> None:
        name = f"entity_segmentation/entityv2_010203_entity_{split}.json"
        page = "get it from https://github.com/adobe-research/EntitySeg-Dataset"
        homes = [f"{home}{part}{name}" for home in ("", "entityseg/") for part in ("annotations/", "")]
        file = find_one(Path(root), homes, f"EntitySeg file of {split}", page)
        tops = [base / "images" for base in (Path(root), Path(root) / "entityseg")]
        # Released annotations name images with their folder, copies of single subsets without.
        inner = [folder for top in tops for folder in sorted(top.glob("entity_*"))]
        super().__init__(file, Images([*tops, *inner], page))

    def _questions(self, image: Record, annotations: list[Record], pool: int) -> list[Question]:
        targets, crowds = tuple(range(pool)), tuple(range(pool, len(annotations)))
        return [Question("c", "", "everything", targets, kind="", unsure=crowds)] if pool else []
