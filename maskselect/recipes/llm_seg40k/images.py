"""Samples the images of LLM-Seg40K and assigns them to splits (arXiv 2404.08767, section 4.2).

LVIS has simple images, of two to five categories, and complex ones, of more; EgoObjects gives images of more than two.
The sample depends only on the seed and the images' ids, not on the order or the other content of a file.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from maskselect.data.coco import CocoQuestions

Source = Literal["coco", "ego_objects"]
"""The values of `from_dataset`: the pictures of LVIS are COCO's."""
SPLITS = ("train", "validation", "test")


class Group(NamedTuple):
    """A sort of images.

    Attributes:
        fewest: least number of categories.
        most: largest number of categories; None for no limit.
        wanted: number of images to sample.
    """

    name: str
    source: Source
    fewest: int
    most: int | None
    wanted: int


@dataclass(frozen=True)
class Chosen:
    """A sampled image.

    Attributes:
        source: its data set.
        first: number of its first sample in the reader.
        count: number of its samples, which follow each other.
    """

    source: Source
    image_id: str
    group: str
    split: str
    first: int
    count: int


class Tally(NamedTuple):
    """Numbers of images of a group: to sample, suitable, and sampled."""

    wanted: int
    found: int
    taken: int


def groups(simple: int, complex_: int, ego_objects: int) -> tuple[Group, ...]:
    """The paper's three sorts, with the number of images of each."""
    return (
        Group("LVIS simple", "coco", 2, 5, simple),
        Group("LVIS complex", "coco", 6, None, complex_),
        Group("EgoObjects", "ego_objects", 3, None, ego_objects),
    )


def choose(group: Group, reader: CocoQuestions, shares: Sequence[float], seed: int) -> tuple[list[Chosen], Tally]:
    """Sample images of a group and assign them to splits.

    Args:
        group: sort of images.
        reader: its data set, with one sample a category of an image.
        shares: ratios of train, validation and test.
    """
    ranges: dict[str, tuple[int, int]] = {}  # first sample and number of samples by image
    for number, image in enumerate(reader.image_ids()):
        first, count = ranges.get(image, (number, 0))
        ranges[image] = first, count + 1
    fit = [
        (image, first, count)
        for image, (first, count) in ranges.items()
        if count >= group.fewest and (group.most is None or count <= group.most)
    ]
    fit.sort(key=lambda one: (order(seed, "take", group.source, one[0]), one[0]))
    taken = fit[: group.wanted]
    taken.sort(key=lambda one: (order(seed, "split", group.source, one[0]), one[0]))
    ends = [round(len(taken) * sum(shares[: place + 1]) / sum(shares)) for place in range(len(shares))]
    chosen = []
    for number, (image, first, count) in enumerate(taken):
        split = next(name for name, end in zip(SPLITS, ends, strict=True) if number < end)
        chosen.append(Chosen(group.source, image, group.name, split, first, count))
    return chosen, Tally(group.wanted, len(fit), len(taken))


def order(seed: int, *parts: str) -> str:
    """A sort key that is random in the seed and the parts."""
    return hashlib.sha256("\0".join((str(seed), *parts)).encode()).hexdigest()
