"""Which images LLM-Seg40K is made of (arXiv 2404.08767, section 4.2), and into which split each goes.

From LVIS simple images, of two to five categories, and complex ones, of more; from EgoObjects those of more than two.
Which are taken depends on the seed and the images' ids alone, not on the order of a file or on what else is in it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Source = Literal["coco", "ego_objects"]
"""As `from_dataset` has it: the pictures of LVIS are COCO's."""
SPLITS = ("train", "validation", "test")


class ImageIds(Protocol):
    """What is needed of a reader: the image of each sample, those of an image behind each other."""

    def image_ids(self) -> list[str]:
        """The image of each sample; as many samples as the image has categories."""
        ...


class Group(NamedTuple):
    """A sort of images. fewest, most: its numbers of categories, most None for any.  wanted: how many images."""

    name: str
    source: Source
    fewest: int
    most: int | None
    wanted: int


@dataclass(frozen=True)
class Chosen:
    """An image to ask about.

    first, count: its samples in the reader.
    """

    source: Source
    image_id: str
    group: str
    split: str
    first: int
    count: int


class Tally(NamedTuple):
    """How many images of a group were wanted, fit it, and were taken."""

    wanted: int
    found: int
    taken: int


def groups(simple: int, complex_: int, ego_objects: int) -> tuple[Group, ...]:
    """The paper's three sorts, with the numbers wanted of each."""
    return (
        Group("LVIS simple", "coco", 2, 5, simple),
        Group("LVIS complex", "coco", 6, None, complex_),
        Group("EgoObjects", "ego_objects", 3, None, ego_objects),
    )


def choose(group: Group, reader: ImageIds, shares: Sequence[float], seed: int) -> tuple[list[Chosen], Tally]:
    """Images of a group in random order, shared out to the splits.

    shares: of train, validation and test; only their ratios count.
    """
    fit = [
        (image, first, count)
        for image, (first, count) in _ranges(reader.image_ids()).items()
        if count >= group.fewest and (group.most is None or count <= group.most)
    ]
    fit.sort(key=lambda found: (order(seed, "take", group.source, found[0]), found[0]))
    taken = fit[: group.wanted]
    taken.sort(key=lambda found: (order(seed, "split", group.source, found[0]), found[0]))
    ends = [round(len(taken) * sum(shares[: place + 1]) / sum(shares)) for place in range(len(shares))]
    chosen = []
    for number, (image, first, count) in enumerate(taken):
        split = next(name for name, end in zip(SPLITS, ends, strict=True) if number < end)
        chosen.append(Chosen(group.source, image, group.name, split, first, count))
    return chosen, Tally(group.wanted, len(fit), len(taken))


def order(seed: int, *parts: str) -> str:
    """A random text for each seed and parts, by which to sort."""
    return hashlib.sha256("\0".join((str(seed), *parts)).encode()).hexdigest()


def _ranges(images: list[str]) -> dict[str, tuple[int, int]]:
    """The first sample of each image, and how many it has."""
    found: dict[str, tuple[int, int]] = {}
    for number, image in enumerate(images):
        first, count = found.get(image, (number, 0))
        found[image] = first, count + 1
    return found
