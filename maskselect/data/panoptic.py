"""COCO panoptic and Pix2Cap-COCO: every pixel of an image belongs to a thing, to stuff, or to nobody.

**COCO panoptic** (https://cocodataset.org/#download): the 118,287 images of train2017 and 5,000 of val2017, about 80
kinds of things and 53 of merged stuff. Annotations CC BY 4.0, photographs under their Flickr terms. On disk, under the
root or its `coco/`: `annotations/panoptic_{split}.json`, the maps in `panoptic_{split}/` (beside the JSON, as they are
unpacked, or beside `annotations/`), the images in `{split}/` or `images/{split}/`.
Quirks: a map's pixel is R + 256 G + 65536 B, the id of a segment, and 0 (void) is nobody's: no measure counts it. A
crowd is neither in the pool nor a target, and where its category is asked for it is not counted either. Names of stuff
end on `-merged`, `-other` or `-stuff`, which is left out; `wall-brick` is asked for as "brick wall".

**Pix2Cap-COCO** (https://huggingface.co/datasets/geshang/Pix2Cap-COCO; licence on its page): the same form with a
`description` for each segment; about 20,000 images (18,212 for training) and 167,254 descriptions. On disk:
`annotations/pix2cap_coco_{split}.json`, and COCO's own maps and images.
Quirks: the published loader leaves a training image out when one of its descriptions has fewer than three characters;
what is empty elsewhere, it replaces by the name of the category. A description is of one segment, so it has one target.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from maskselect.backends.progress import track
from maskselect.data.asked import Asked, Asks, ImageQuestions, Question, asked_of
from maskselect.data.coco import by_category, coco_split, folders
from maskselect.data.coco_file import size_of
from maskselect.data.files import Images, find_one, refuse_pointer
from maskselect.data.index import Key, Record, Section, open_index
from maskselect.data.values import by_key, flag_of, names_of

_PAGE = "get it from https://cocodataset.org/#download"
_PIX2CAP_PAGE = "get it from https://huggingface.co/datasets/geshang/Pix2Cap-COCO"
_SECTIONS = {
    "image": Section("images"),
    "annotation": Section("annotations", key="image_id"),
    "category": Section("categories"),
}
_ENDINGS = ("-merged", "-other", "-stuff")
_SHORTEST = 3  # characters of a description, in Pix2Cap's own loader


class PanopticQuestions(ImageQuestions):
    """Questions about the segments of a panoptic file; what is asked, a subclass may say in `_questions`.

    root: where maps and images are looked for.  split: as COCO calls it.  wanted: tags of the questions that count.

    The pool is every segment that is no crowd; `ignore` is void, and crowds of the category that is asked for.
    Raises FileNotFoundError when maps or images are not there, ValueError for a damaged file.
    """

    def __init__(self, file: Path, root: Path, split: str, wanted: str = "c") -> None:
        self.index = open_index(file, _SECTIONS)
        self.images = Images(folders(root, split, f"images/{split}"), _PAGE)
        maps = f"panoptic_{split}"
        self.maps = Images([file.parent / maps, *folders(root, maps, f"annotations/{maps}")], f"it holds maps; {_PAGE}")
        named = names_of(self.index.all("category"), f"{file}: category")
        self.names = {key: readable(name) for key, name in named.items()}
        by_key(self.names.values(), str.lower, file, "category", "name")
        stamp = f"1 {type(self).__name__} {list(self.names.items())}"
        super().__init__(file, ((key, tags) for key, tags, _ in asked_of(self.index, self._asks, stamp)), wanted)
        if not len(self):
            raise ValueError(f"{file} asks nothing; expected annotations with segments_info")

    def _questions(self, segments: list[Record], pool: int) -> list[Question]:
        """What is asked of an image. segments: those of the pool first, then the crowds."""
        return [
            Question("c", str(key), self.names[key], tuple(group.places), unsure=tuple(group.crowds))
            for key, group in by_category(segments, pool, self.names).items()
        ]

    def _asks(self) -> Iterator[Asks]:
        total = self.index.count("annotation")
        for annotation in track(self.index.all("annotation"), total, f"Sorting {self.index.source.name}", "images"):
            questions, _, _ = self._told(annotation)
            yield annotation["image_id"], "".join(question.tag for question in questions), ""

    def _told(self, annotation: Record) -> tuple[list[Question], list[Record], int]:
        try:
            found = _segments(annotation)
            segments = sorted(found, key=lambda segment: bool(segment["iscrowd"]))
            pool = sum(not segment["iscrowd"] for segment in found)
            return self._questions(segments, pool), segments, pool
        except ValueError as error:
            raise ValueError(f"image {annotation['image_id']!r} in {self.index.source}: {error}") from error

    def _read(self, key: Key) -> Asked:
        annotation, image = self.index.get("annotation", key), self.index.get("image", key)
        questions, segments, pool = self._told(annotation)
        try:
            ids = read_ids(self.maps.find(str(annotation.get("file_name"))))
            size = ids.shape if image.get("height") is image.get("width") is None else size_of(image)
            if ids.shape != size:
                raise ValueError(f"its map is of size {list(ids.shape)}, the image of {list(size)}")
            masks = _masks(ids, [segment["id"] for segment in segments])
            name = str(image.get("file_name") or f"{Path(str(annotation.get('file_name'))).stem}.jpg")
            return Asked(self.images.find(name), str(key), masks, pool, questions, torch.from_numpy(ids == 0))
        except ValueError as error:
            raise ValueError(f"image {key!r} in {self.index.source}: {error}") from error


class PanopticDataset(PanopticQuestions):
    """Samples of COCO panoptic: one for each image and category, things and stuff; the targets are all its segments.

    root: see the top of the file.  split: train2017 or val2017, or short, train or val.

    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file.
    """

    def __init__(self, root: str | Path, split: str = "val2017") -> None:
        root, split = Path(root), coco_split(split)
        super().__init__(_find(root, f"panoptic_{split}.json", _PAGE), root, split)


class Pix2CapDataset(PanopticQuestions):
    """Samples of Pix2Cap-COCO: one a segment, whose description is the prompt.

    root: see the top of the file.  split: train or val.
    whole: leave out images of which a description has fewer than three characters; by default in train alone, as is
        published. Otherwise the name of the category stands in for an empty description.

    Raises FileNotFoundError when the layout is not there, ValueError for a damaged file.
    """

    def __init__(self, root: str | Path, split: str = "val", whole: bool | None = None) -> None:
        root, short = Path(root), split.removesuffix("2017")
        self.whole = short == "train" if whole is None else whole
        file = _find(root, f"pix2cap_coco_{short}.json", _PIX2CAP_PAGE)
        super().__init__(file, root, coco_split(short), "d" if self.whole else "dx")

    def _questions(self, segments: list[Record], pool: int) -> list[Question]:
        by_category(segments, pool, self.names)  # says when a category is not in the file
        # Crowds count here, as in the published loader.
        tag = "x" if any(len(_description(segment)) < _SHORTEST for segment in segments) else "d"
        return [
            Question(tag, str(segment["id"]), _description(segment) or self.names[segment["category_id"]], (place,), "")
            for place, segment in enumerate(segments[:pool])
        ]


def _find(root: Path, name: str, page: str) -> Path:
    return find_one(root, [f"annotations/{name}", f"coco/annotations/{name}", name], "panoptic annotations", page)


def readable(name: str) -> str:
    """A category's name as it is asked for.

    >>> readable("dining table"), readable("sky-other-merged"), readable("wall-brick"), readable("window-blind")
    ('dining table', 'sky', 'brick wall', 'window blind')
    """
    short = name.strip()
    while short.endswith(_ENDINGS):
        short = short.rpartition("-")[0]
    whole, _, of = short.partition("-")
    return f"{of} {whole}" if of and whole in ("wall", "floor") else short.replace("-", " ")


def read_ids(path: Path) -> np.ndarray:
    """The segment of each pixel of a panoptic map, (H, W) int32. Raises ValueError when it is no RGB image."""
    refuse_pointer(path, f"map {path}")
    try:
        with Image.open(path) as picture:
            mode, pixels = picture.mode, np.asarray(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"map {path} is truncated or not an image: {error}") from error
    if mode not in ("RGB", "RGBA"):
        raise ValueError(f"map {path} is of mode {mode}; expected RGB, whose three channels are one number")
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue


def _masks(ids: np.ndarray, wanted: list[int]) -> torch.Tensor:
    """(K, H, W) bool. Raises ValueError when the map has a segment that is not wanted."""
    out = np.zeros((len(wanted), *ids.shape), bool)
    left = ids != 0
    for mask, one in zip(out, wanted, strict=True):
        np.equal(ids, one, out=mask)
        left ^= mask  # a pixel has one id, so it is cleared once
    if left.any():
        raise ValueError(f"its map has segment {ids[left][0]}, which segments_info does not have")
    return torch.from_numpy(out)


def _segments(annotation: Record) -> list[Record]:
    segments = annotation.get("segments_info")
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise ValueError("it has no list segments_info")
    ids = [segment.get("id") for segment in segments]
    if wrong := [one for one in ids if not isinstance(one, int) or not 0 < one < 1 << 24]:
        raise ValueError(f"it has a segment with the id {str(wrong[0])[:40]}; expected a number below 2**24, not 0")
    by_key(ids, int, "segments_info", "segment")
    return [segment | {"iscrowd": flag_of(segment.get("iscrowd"), "iscrowd")} for segment in segments]


def _description(segment: Mapping[str, Any]) -> str:
    text = segment.get("description") or ""
    if not isinstance(text, str):
        raise ValueError(f"segment {segment.get('id')} has the description {str(text)[:40]}; expected a text")
    return text.strip()
