"""Common parts of the sources of MaskGroups-2M: the rules, the links to the pictures, and the row of an image.

A source opens its files at first use, so that it is picklable.
"""

import os
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from maskselect.data.index import Key
from maskselect.data.maskgroups_2m import IMAGES
from maskselect.recipes.engine import Built
from maskselect.recipes.maskgroups_2m.groups import GroupPrompt
from maskselect.recipes.maskgroups_2m.objects import Drawn

COCO, GENOME, REFER = "coco", "vg", "refer"
FREE = "free"
"""The kind of sentences that people wrote."""


@dataclass(frozen=True)
class Rules:
    """Rules of the groups.

    Attributes:
        seed: of every choice.
        merge_iou: objects with this IoU are merged.
        box_iou: least IoU of a box and the bounding box of the mask made from it.
        box_score: least score of the proposer for such a mask.
        absolute: most prompts of an image about positions without a reference.
        relative: most prompts of an image about positions with a reference.
        superlatives: whether positions may be superlatives ("the leftmost cup"). They are ours, not the paper's.
    """

    seed: int = 0
    merge_iou: float = 0.7
    box_iou: float = 0.6
    box_score: float = 0.7
    absolute: int = 2
    relative: int = 4
    superlatives: bool = True

    def rng(self, source: str, image: Key) -> np.random.Generator:
        """A generator that depends on the seed and the image only."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{source}/{image}".encode())])


class Source(Protocol):
    """Images and the rows that are built from them."""

    def images(self) -> list[int]:
        """The source's ids of its images, in a fixed order."""
        ...

    def coco_id(self, image: int) -> int | None:
        """The COCO id of an image; None if it is not in COCO."""
        ...

    def build(self, image: int) -> Built:
        """The row of an image, or no row if it has no group."""
        ...


class Links:
    """The folder `images/` of the data set: a link for each folder of source images."""

    def __init__(self, output: Path) -> None:
        self.folder = output / IMAGES

    def name(self, picture: Path) -> str:
        """The name of a picture within `images/`; its folder is linked if necessary.

        Raises:
            ValueError: another folder of the same name is linked.
        """
        target = picture.parent.resolve()
        link = self.folder / target.name
        if not link.is_symlink():
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another process made it, or it is not a link
                os.symlink(target, link, target_is_directory=True)
        if link.resolve() != target:
            raise ValueError(f"{link} leads to {link.resolve()}; expected {target}: choose another output folder")
        return f"{target.name}/{picture.name}"


def built(
    source: str,
    image: str,
    image_id: str,
    size: tuple[int, int],
    objects: Sequence[Drawn],
    prompts: Iterable[GroupPrompt],
    counts: Counter[str],
) -> Built:
    """The row of an image with the counts of its prompts; no row without prompts."""
    records = [prompt.as_record() for prompt in prompts]
    for prompt in records:
        counts[composition_key(source, prompt["kind"], bool(prompt["references"]))] += 1
    if not records:
        return Built([], counts + Counter({f"{source}: images without a group": 1}))
    record = {
        "image": image,
        "image_id": image_id,
        "source": source,
        "height": size[0],
        "width": size[1],
        "masks": [o.code for o in objects],
        "asked": len(records),
        "prompts": records,
    }
    return Built([record], counts + Counter({f"{source}: images": 1}))


def composition_key(source: str, kind: str, with_references: bool) -> str:
    """The name of the count of a source's prompts of a kind."""
    return f"prompts {source} {kind} {'w/' if with_references else 'w/o'} reference"
