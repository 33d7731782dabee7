"""What the sources of MaskGroups-2M share: the rules, the links to their pictures, and the row that each image becomes.

A source opens its files when it is first asked, so that it can be sent to another process.
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
"""Kind of the prompts that people wrote."""


@dataclass(frozen=True)
class Rules:
    """What decides which groups there are.

    seed: of every choice.
    merge_iou: objects that overlap so much are one.
    box_iou: a mask made from a box stays when the box around it overlaps the given one so much.
    box_score: and when the proposer's own estimate is at least this.
    absolute, relative: at most so many prompts of an image about positions, without and with a reference.
    """

    seed: int = 0
    merge_iou: float = 0.7
    box_iou: float = 0.6
    box_score: float = 0.7
    absolute: int = 2
    relative: int = 4

    def rng(self, source: str, image: Key) -> np.random.Generator:
        """A generator for one image, whatever was built before it."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{source}/{image}".encode())])


class Source(Protocol):
    """Images with what a row is made of."""

    def images(self) -> list[int]:
        """The source's own numbers of its images, in a fixed order."""
        ...

    def coco_number(self, image: int) -> int | None:
        """COCO's number of an image, or None where it is not COCO's."""
        ...

    def build(self, image: int) -> Built:
        """The row of an image; none where nothing can be asked."""
        ...


class Links:
    """`images/` of what is built: a link for each folder that holds source images."""

    def __init__(self, output: Path) -> None:
        self.folder = output / IMAGES

    def name(self, picture: Path) -> str:
        """The name of a picture within `images/`; its folder is linked when it is not yet.

        Raises ValueError when another folder of the same name is linked already.
        """
        target = picture.parent.resolve()
        link = self.folder / target.name
        if not link.is_symlink():
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another process was faster, or it is not a link
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
    """A row and what is in it; no row where nothing is asked."""
    asked = [prompt.as_record() for prompt in prompts]
    for prompt in asked:
        counts[composition_key(source, prompt["kind"], bool(prompt["references"]))] += 1
    if not asked:
        return Built([], counts + Counter({f"{source}: images without a group": 1}))
    record = {
        "image": image,
        "image_id": image_id,
        "source": source,
        "height": size[0],
        "width": size[1],
        "masks": [o.code for o in objects],
        "asked": len(asked),
        "prompts": asked,
    }
    return Built([record], counts + Counter({f"{source}: images": 1}))


def composition_key(source: str, kind: str, with_references: bool) -> str:
    """Under which the prompts of a source and kind are counted."""
    return f"prompts {source} {kind} {'w/' if with_references else 'w/o'} reference"
