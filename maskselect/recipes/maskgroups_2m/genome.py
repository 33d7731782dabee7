"""Visual Genome as a source of MaskGroups-2M (RAS, section 4.1)."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from maskselect.data.images import load_image
from maskselect.data.visual_genome import GenomeImage, VisualGenome
from maskselect.ops import rle
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.engine import Built
from maskselect.recipes.maskgroups_2m.groups import (
    GroupPrompt,
    any_beside_reference,
    any_by_position,
    beside_reference,
    by_position,
    by_relation,
    by_word,
    named_groups,
)
from maskselect.recipes.maskgroups_2m.objects import Drawn, merge
from maskselect.recipes.maskgroups_2m.sources import GENOME, Links, Rules, built


@dataclass
class Genome:
    """Visual Genome: SAM's masks of its boxes without the bad ones, and every kind of prompt that its texts allow.

    Attributes:
        root: folder of the data set.
        boxes: makes the masks.
    """

    root: Path
    boxes: ProposerBoxes
    links: Links
    rules: Rules

    @cached_property
    def reader(self) -> VisualGenome:
        """The annotations."""
        return VisualGenome(self.root)

    def images(self) -> list[int]:
        """The images with objects."""
        return self.reader.image_ids()

    def coco_id(self, image: int) -> int | None:
        """From the data set's file of images."""
        return self.reader.coco_id(image)

    def build(self, image: int) -> Built:
        """The row of an image, or no row if it has no group."""
        described = self.reader.describe(image)
        picture = self.reader.picture(image)
        drawn, kept, counts = self._drawn(described, picture)
        objects, places = merge(drawn, self.rules.merge_iou)
        place_of = {thing: places[number] for number, thing in enumerate(kept)}
        relations = [
            (place_of[r.subject], r.predicate, place_of[r.target])
            for r in described.relations
            if r.subject in place_of and r.target in place_of
        ]
        counts["Visual Genome: objects after merging"] = len(objects)
        prompts = self._prompts(objects, relations, described.size, self.rules.rng(GENOME, image))
        image_id = f"vg/{image}" if described.coco_id is None else f"coco/{described.coco_id}"
        return built(GENOME, self.links.name(picture), image_id, described.size, objects, prompts, counts)

    def _prompts(
        self,
        objects: list[Drawn],
        relations: list[tuple[int, str, int]],
        size: tuple[int, int],
        rng: np.random.Generator,
    ) -> list[GroupPrompt]:
        names, attributes = named_groups(objects, "names"), named_groups(objects, "attributes")
        masks = torch.from_numpy(rle.decode_many([o.code for o in objects], size))
        boxes = masks_to_boxes_xyxy(masks).numpy()
        rules = self.rules
        # Up to half of the positions are of objects of any category.
        anywhere = any_by_position(boxes, size, rules.absolute // 2, rng)
        any_beside = any_beside_reference(boxes, rules.relative // 2, rng)
        return [
            *by_word(names, "category", rng),
            *by_word(attributes, "attribute", rng),
            *anywhere,
            *by_position(names, boxes, size, rules.absolute - len(anywhere), rng, rules.superlatives),
            *any_beside,
            *beside_reference(names, boxes, rules.relative - len(any_beside), rng),
            *by_relation(relations, rng),
        ]

    def _drawn(self, described: GenomeImage, picture: Path) -> tuple[list[Drawn], list[int], Counter[str]]:
        """Objects with good masks, their indices among the things, and counts of left-out objects by reason."""
        counts = Counter({"Visual Genome: boxes": len(described.things)})
        if not described.things:
            return [], [], counts
        pixels = load_image(picture)
        if pixels.shape[:2] != described.size:
            raise ValueError(f"image {picture} is {list(pixels.shape[:2])}; its annotations say {list(described.size)}")
        boxes = torch.tensor([thing.box_xyxy for thing in described.things], dtype=torch.float32)
        masks = self.boxes.segment_boxes(pixels, boxes)
        tight = masks_to_boxes_xyxy(masks.masks).float()
        agree = torch.diagonal(box_iou(tight, boxes)).nan_to_num(0) >= self.rules.box_iou
        confident = masks.scores >= self.rules.box_score
        counts["Visual Genome: masks off their box"] = int((~agree).sum())
        counts["Visual Genome: masks of low score"] = int((agree & ~confident).sum())
        kept = torch.nonzero(agree & confident)[:, 0].tolist()
        codes = rle.encode(masks.masks[kept].numpy())
        things = [described.things[index] for index in kept]
        return [Drawn(c, t.names, t.attributes) for c, t in zip(codes, things, strict=True)], kept, counts
