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
    """Visual Genome: SAM's masks of its boxes, the bad ones left out, asked for in every way that its texts allow.

    root: of the data set.  boxes: makes the masks.
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
        """Images that have objects."""
        return self.reader.image_ids()

    def coco_number(self, image: int) -> int | None:
        """As its file of images says."""
        return self.reader.coco_id(image)

    def build(self, image: int) -> Built:
        """The row of an image, if it has a group."""
        told = self.reader.describe(image)
        picture = self.reader.picture(image)
        drawn, kept, counts = self._drawn(told, picture)
        objects, places = merge(drawn, self.rules.merge_iou)
        place_of = {thing: places[number] for number, thing in enumerate(kept)}
        relations = [
            (place_of[r.subject], r.predicate, place_of[r.target])
            for r in told.relations
            if r.subject in place_of and r.target in place_of
        ]
        counts["Visual Genome: objects after merging"] = len(objects)
        prompts = self._prompts(objects, relations, told.size, self.rules.rng(GENOME, image))
        image_id = f"vg/{image}" if told.coco_id is None else f"coco/{told.coco_id}"
        return built(GENOME, self.links.name(picture), image_id, told.size, objects, prompts, counts)

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
        return [
            *by_word(names, "category", rng),
            *by_word(attributes, "attribute", rng),
            *by_position(names, boxes, size, self.rules.absolute, rng),
            *beside_reference(names, boxes, self.rules.relative, rng),
            *by_relation(relations, rng),
        ]

    def _drawn(self, told: GenomeImage, picture: Path) -> tuple[list[Drawn], list[int], Counter[str]]:
        """Objects with good masks, their places among the things, and how many were left out for what."""
        counts = Counter({"Visual Genome: boxes": len(told.things)})
        if not told.things:
            return [], [], counts
        pixels = load_image(picture)
        if pixels.shape[:2] != told.size:
            raise ValueError(f"image {picture} is {list(pixels.shape[:2])}; its annotations say {list(told.size)}")
        given = torch.tensor([thing.box_xyxy for thing in told.things], dtype=torch.float32)
        found = self.boxes.segment_boxes(pixels, given)
        around = masks_to_boxes_xyxy(found.masks).float()
        agree = torch.diagonal(box_iou(around, given)).nan_to_num(0) >= self.rules.box_iou
        sure = found.scores >= self.rules.box_score
        counts["Visual Genome: masks off their box"] = int((~agree).sum())
        counts["Visual Genome: masks of low score"] = int((agree & ~sure).sum())
        kept = torch.nonzero(agree & sure)[:, 0].tolist()
        codes = rle.encode(found.masks[kept].numpy())
        things = [told.things[place] for place in kept]
        return [Drawn(c, t.names, t.attributes) for c, t in zip(codes, things, strict=True)], kept, counts
