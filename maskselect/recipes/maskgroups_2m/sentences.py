"""The RefCOCO family as a source of MaskGroups-2M (RAS, section 4.1)."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from maskselect.data.coco_file import decode_masks, file_name_of, size_of
from maskselect.data.refer import ReferDataset
from maskselect.ops import rle
from maskselect.recipes.engine import Built, Record
from maskselect.recipes.maskgroups_2m.groups import GroupPrompt
from maskselect.recipes.maskgroups_2m.objects import Drawn
from maskselect.recipes.maskgroups_2m.sources import FREE, REFER, Links, Rules, built
from maskselect.recipes.maskgroups_2m.templates import EXPRESSIONS


@dataclass
class Sentences:
    """RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: people's sentences about one, several or none of COCO's objects.

    Attributes:
        root: folder of the REFER family.
        sets: names, see `maskselect.data.refer`.
    """

    root: Path
    sets: tuple[str, ...]
    links: Links
    rules: Rules

    @cached_property
    def readers(self) -> list[ReferDataset]:
        """The training split of each set."""
        return [ReferDataset(name, self.root, "train") for name in self.sets]

    def images(self) -> list[int]:
        """The images of the sets' training splits, in order."""
        return sorted({int(image) for reader in self.readers for image in reader.image_ids()})

    def coco_id(self, image: int) -> int | None:
        """The same id."""
        return image

    def build(self, image: int) -> Built:
        """The row of an image: COCO's objects, and every sentence once for each set, in one of `EXPRESSIONS`."""
        annotations: dict[Any, Record] = {}
        all_sentences: list[tuple[str, list[Any]]] = []
        picture, size = None, (0, 0)
        for reader in self.readers:
            sentences = reader.sentences_of(image)
            if not sentences:
                continue
            all_sentences += sentences
            record = reader.coco.image(image)
            picture, size = picture or reader.images.find(file_name_of(record)), size_of(record)
            annotations |= {a["id"]: a for a in reader.coco.annotations(image) if not a.get("iscrowd")}
        if picture is None:
            raise ValueError(f"image {image} has no training sentence in {', '.join(self.sets)} under {self.root}")
        places = {key: place for place, key in enumerate(annotations)}
        codes = rle.encode(decode_masks(list(annotations.values()), size).numpy())
        objects = [Drawn(code, ()) for code in codes]
        rng = self.rules.rng(REFER, image)
        prompts = [
            GroupPrompt(asked(text, rng), FREE, (), tuple(places[key] for key in keys if key in places))
            for text, keys in all_sentences
        ]
        return built(REFER, self.links.name(picture), f"coco/{image}", size, objects, prompts, Counter())


def asked(expression: str, rng: np.random.Generator) -> str:
    """A prompt for an expression, in one of `EXPRESSIONS`.

    >>> sorted({asked("the left cup", np.random.default_rng(seed)) for seed in range(9)})
    ['Select the left cup', 'the left cup']
    """
    bare = re.sub(r"^(the|an?)\s+", "", expression, flags=re.IGNORECASE)
    text = EXPRESSIONS[int(rng.integers(len(EXPRESSIONS)))]
    return text.format(expression=expression, bare=bare)
