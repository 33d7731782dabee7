"""COCO panoptic and Pix2Cap-COCO: every pixel of an image belongs to a thing, to stuff, or is void.

**COCO panoptic** (https://cocodataset.org/#download): the 118,287 images of train2017 and 5,000 of val2017, about 80
kinds of things and 53 of merged stuff. Annotations CC BY 4.0, photographs under their Flickr terms. On disk, under the
root or its `coco/`: `annotations/panoptic_{split}.json`, the maps in `panoptic_{split}/` (beside the JSON, as they are
unpacked, or beside `annotations/`), the images in `{split}/` or `images/{split}/`.
Quirks: a map's pixel is R + 256 G + 65536 B, the id of a segment; 0 is void and ignored. A crowd is neither in the pool
nor a target, and its pixels are ignored in questions about its category. The endings `-merged`, `-other` and `-stuff`
of stuff are removed; `wall-brick` becomes "brick wall".

**Pix2Cap-COCO** (https://huggingface.co/datasets/geshang/Pix2Cap-COCO; licence on its page): the same form with a
`description` for each segment; about 20,000 images (18,212 for training) and 167,254 descriptions. On disk:
`annotations/pix2cap_coco_{split}.json`, and COCO's own maps and images.
Quirks: the published loader leaves out a training image with a description of fewer than three characters; elsewhere it
replaces an empty description by the name of the category. A description is of one segment, so it has one target.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskselect.backends.progress import track
from maskselect.data.coco import by_category, coco_split, folders
from maskselect.data.coco_file import size_of
from maskselect.data.files import Images, find_one
from maskselect.data.images import open_picture
from maskselect.data.index import Key, Record, Section, open_index
from maskselect.data.questions import ImageQuestions, ImageTags, Question, QuestionedImage, indexed_tags
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
    """Questions about the segments of a panoptic file, by default one per category. The pool is every segment that is
    no crowd. Void and the crowds of the question's category are ignored.

    Args:
        file: the annotations.
        root: folder of maps and images.
        split: COCO's name of the split.
        tags: tags of the questions that become samples.
    """

    def __init__(self, file: Path, root: Path, split: str, tags: str = "c") -> None:
        self.index = open_index(file, _SECTIONS)
        self.images = Images(folders(root, split, f"images/{split}"), _PAGE)
        maps = f"panoptic_{split}"
        self.maps = Images([file.parent / maps, *folders(root, maps, f"annotations/{maps}")], f"it holds maps; {_PAGE}")
        names = names_of(self.index.all("category"), f"{file}: category")
        self.names = {key: readable(name) for key, name in names.items()}
        by_key(self.names.values(), str.lower, file, "category", "name")
        stamp = f"1 {type(self).__name__} {list(self.names.items())}"
        rows = indexed_tags(self.index, self._all_tags, stamp)
        super().__init__(file, ((key, letters) for key, letters, _ in rows), tags)
        if not len(self):
            raise ValueError(f"{file} asks nothing; expected annotations with segments_info")

    def _questions(self, segments: list[Record], pool: int) -> list[Question]:
        """The questions about an image. `segments` has the `pool` ones first, then the crowds."""
        return [
            Question("c", str(key), self.names[key], tuple(group.places), unsure=tuple(group.crowds))
            for key, group in by_category(segments, pool, self.names).items()
        ]

    def _all_tags(self) -> Iterator[ImageTags]:
        total = self.index.count("annotation")
        for annotation in track(self.index.all("annotation"), total, f"Sorting {self.index.source.name}", "images"):
            questions, _, _ = self._described(annotation)
            yield annotation["image_id"], "".join(question.tag for question in questions), ""

    def _described(self, annotation: Record) -> tuple[list[Question], list[Record], int]:
        """The questions about an image, its segments with the crowds last, and the size of the pool."""
        try:
            segments = sorted(_segments(annotation), key=lambda segment: bool(segment["iscrowd"]))
            pool = sum(not segment["iscrowd"] for segment in segments)
            return self._questions(segments, pool), segments, pool
        except ValueError as error:
            raise ValueError(f"image {annotation['image_id']!r} in {self.index.source}: {error}") from error

    def _read(self, key: Key) -> QuestionedImage:
        annotation, image = self.index.get("annotation", key), self.index.get("image", key)
        questions, segments, pool = self._described(annotation)
        try:
            ids = read_ids(self.maps.find(str(annotation.get("file_name"))))
            size = ids.shape if image.get("height") is image.get("width") is None else size_of(image)
            if ids.shape != size:
                raise ValueError(f"its map is of size {list(ids.shape)}, the image of {list(size)}")
            masks = _masks(ids, [segment["id"] for segment in segments])
            name = str(image.get("file_name") or f"{Path(str(annotation.get('file_name'))).stem}.jpg")
            return QuestionedImage(self.images.find(name), str(key), masks, pool, questions, torch.from_numpy(ids == 0))
        except ValueError as error:
            raise ValueError(f"image {key!r} in {self.index.source}: {error}") from error


class PanopticDataset(PanopticQuestions):
    """Samples of COCO panoptic: one per image and category, things and stuff; the targets are all its segments.

    Splits: train2017 or val2017, or short, train or val.
    """

    def __init__(self, root: str | Path, split: str = "val2017") -> None:
        root, split = Path(root), coco_split(split)
        super().__init__(_find(root, f"panoptic_{split}.json", _PAGE), root, split)


class Pix2CapDataset(PanopticQuestions):
    """Samples of Pix2Cap-COCO: one per segment, with its description as prompt. Splits: train or val."""

    def __init__(self, root: str | Path, split: str = "val") -> None:
        root, short = Path(root), split.removesuffix("2017")
        file = _find(root, f"pix2cap_coco_{short}.json", _PIX2CAP_PAGE)
        super().__init__(file, root, coco_split(short), "d" if short == "train" else "dx")

    def _questions(self, segments: list[Record], pool: int) -> list[Question]:
        by_category(segments, pool, self.names)  # raises for an unknown category
        # Descriptions of crowds count, as in the published loader.
        tag = "x" if any(len(_description(segment)) < _SHORTEST for segment in segments) else "d"
        return [
            Question(tag, str(segment["id"]), _description(segment) or self.names[segment["category_id"]], (place,), "")
            for place, segment in enumerate(segments[:pool])
        ]


def _find(root: Path, name: str, page: str) -> Path:
    return find_one(root, [f"annotations/{name}", f"coco/annotations/{name}", name], "panoptic annotations", page)


def readable(name: str) -> str:
    """A category's name as a prompt.

    >>> readable("dining table"), readable("sky-other-merged"), readable("wall-brick"), readable("window-blind")
    ('dining table', 'sky', 'brick wall', 'window blind')
    """
    short = name.strip()
    while short.endswith(_ENDINGS):
        short = short.rpartition("-")[0]
    whole, _, of = short.partition("-")
    return f"{of} {whole}" if of and whole in ("wall", "floor") else short.replace("-", " ")


def read_ids(path: Path) -> np.ndarray:
    """The segment of each pixel of a panoptic map, (H, W) int32. Raises ValueError for anything but an RGB image."""
    picture = open_picture(path, f"map {path}")
    if picture.mode not in ("RGB", "RGBA"):
        raise ValueError(f"map {path} is of mode {picture.mode}; expected RGB, whose three channels are one number")
    pixels = np.asarray(picture)
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue


def _masks(ids: np.ndarray, segments: list[int]) -> torch.Tensor:
    """Masks of segments, (K, H, W) bool. Raises ValueError if the map has another segment."""
    out = np.zeros((len(segments), *ids.shape), bool)
    left = ids != 0
    for mask, segment in zip(out, segments, strict=True):
        np.equal(ids, segment, out=mask)
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
