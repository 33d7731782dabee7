"""COCO and LVIS as a source of MaskGroups-2M (RAS, section 4.1)."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from maskselect.data.coco import CocoDataset, CocoQuestions
from maskselect.data.coco_file import decode_masks, size_of
from maskselect.data.lvis import LvisDataset
from maskselect.ops import rle
from maskselect.recipes.engine import Built
from maskselect.recipes.maskgroups_2m.groups import by_word, named_groups
from maskselect.recipes.maskgroups_2m.objects import Drawn, merge
from maskselect.recipes.maskgroups_2m.sources import COCO, Links, Rules, built


@dataclass
class CocoLvis:
    """COCO and LVIS train, merged where masks overlap: groups of a category, by its name and by a reference.

    Attributes:
        coco: root of COCO 2017, or None.
        lvis: root of LVIS v1, or None.
    """

    coco: Path | None
    lvis: Path | None
    links: Links
    rules: Rules

    @cached_property
    def readers(self) -> list[CocoQuestions]:
        """LVIS first: its outlines are finer, and the first of merged masks is kept."""
        lvis = [] if self.lvis is None else [LvisDataset(self.lvis, "train")]
        coco = [] if self.coco is None else [CocoDataset(self.coco, "train")]
        return [*lvis, *coco]

    def images(self) -> list[int]:
        """The images of either data set, in order."""
        return sorted({int(key) for reader in self.readers for key in reader.coco.index.keys("image")})

    def coco_id(self, image: int) -> int | None:
        """The same id."""
        return image

    def build(self, image: int) -> Built:
        """The row of an image, or no row if it has no group."""
        objects: list[Drawn] = []
        partial: set[str] = set()
        holders = [reader for reader in self.readers if reader.coco.index.has("image", image)]
        record = holders[0].coco.image(image)
        size = size_of(record)
        for reader in holders:
            annotations = reader.coco.annotations(image)
            crowds = [a["category_id"] for a in annotations if a.get("iscrowd")]
            partial |= {reader.names[key] for key in (*crowds, *_not_exhaustive(reader, image)) if key in reader.names}
            single = [a for a in annotations if not a.get("iscrowd") and a["category_id"] in reader.names]
            codes = rle.encode(decode_masks(single, size).numpy())
            objects += [Drawn(c, (reader.names[a["category_id"]],)) for c, a in zip(codes, single, strict=True)]
        merged, _ = merge([o for o in objects if rle.area(o.code)], self.rules.merge_iou)
        groups = named_groups(merged, "names", frozenset(partial))
        prompts = by_word(groups, "category", self.rules.rng(COCO, image))
        counts = Counter({"COCO and LVIS: objects": len(objects), "COCO and LVIS: objects after merging": len(merged)})
        name = self.links.name(holders[0].picture(image))
        return built(COCO, name, f"coco/{image}", size, merged, prompts, counts)


def _not_exhaustive(reader: CocoQuestions, image: int) -> list[Any]:
    """Categories of which some instances have no mask."""
    listed = reader.coco.image(image).get("not_exhaustive_category_ids") or []
    return listed if isinstance(listed, list) else []
