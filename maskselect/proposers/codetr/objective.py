"""`CoDetrObjective`: trains a compact Co-DETR on scenes.

One-to-one assignment for every decoder layer, every object several times among all cells of the encoder, and
RefineMask's losses on the mask stages. If only the chosen cells were trained, a small model with few queries would
rarely look where objects are. Co-DETR's auxiliary heads, denoising and mixed augmentations are left out: a few minutes
on two cores want a small objective. There is one class, a thing, since candidates need no other.

Shape letters: B images, G objects of an image, R regions, s cells of a region's side, H W pixels of the canvas.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, roi_align

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.proposers.codetr.assignment import Targets, set_loss
from maskselect.proposers.codetr.config import compact_config
from maskselect.proposers.codetr.frame import MEAN, STD, scaled_size
from maskselect.proposers.codetr.importer import SYSTEM
from maskselect.proposers.codetr.masks import merge_stages, region_features
from maskselect.proposers.codetr.model import CoDetr

_STAGE_WEIGHTS = (0.25, 0.5, 0.75, 1.0)  # those of RefineMask's published configuration
_SHIFT, _STRETCH = 0.1, 0.15  # how far, in sides, the regions that masks are trained in are off the true box


class CoDetrObjective(nn.Module):
    """A `Trainable` around a compact Co-DETR.

    model: sizes that differ from `config.compact_config`; classes must stay 1.
    repeats: how often an object is assigned among the encoder's cells.
    mask_weight, judge_weight: of the mask stages and of the predicted IoU; classes and boxes weigh as in
        DINO's assignment.
    smallest: objects of fewer canvas pixels are not asked for.
    precision: "bf16" runs the backbone under autocast, "fp32" does not.
    flips: mirror images at random. Left and right mean nothing to a detector of things.

    Batches are those of `SceneDataset`: image (B, 3, S, S) uint8, index (B, S, S) uint8, size (B, 2).
    Raises ValueError for another number of classes, a square canvas, or another precision.
    """

    system = SYSTEM

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        repeats: int = 4,
        mask_weight: float = 2.0,
        judge_weight: float = 1.0,
        smallest: int = 16,
        precision: str = "fp32",
        flips: bool = True,
    ) -> None:
        super().__init__()
        config = compact_config(model)
        if config.classes != 1 or config.square_canvas:
            raise ValueError("Co-DETR is trained here with classes 1 and without a square canvas")
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {precision!r}")
        self.model = CoDetr(config)
        self.repeats, self.mask_weight, self.judge_weight = repeats, mask_weight, judge_weight
        self.smallest, self.flips = smallest, flips
        self.precision = torch.bfloat16 if precision == "bf16" else torch.float32

    def learned_state(self) -> dict[str, Tensor]:
        """The model's weights under the names that `importer.load_codetr` reads."""
        return dict(self.model.state_dict())

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars "loss", "class", "l1", "giou" (sums over layers), "mask" and "judge"."""
        pixels, padding, targets = self.prepare(batch, self.flips and self.training)
        seen = self.model.detect(pixels, padding, every_layer=True, precision=self.precision)
        layers = [set_loss(seen.cell_logits, seen.cell_boxes, targets, self.repeats)]
        layers += [set_loss(*layer, targets) for layer in zip(seen.logits, seen.boxes, strict=True)]
        parts = {name: torch.stack([layer[name] for layer in layers]).sum() for name in layers[0]}
        parts["mask"], parts["judge"] = self._mask_losses(seen.maps, targets)
        total = parts["class"] + parts["l1"] + parts["giou"]
        return {"loss": total + self.mask_weight * parts["mask"] + self.judge_weight * parts["judge"], **parts}

    @torch.no_grad()
    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scalars of `loss`, without flips."""
        return self.loss(batch)

    def prepare(self, batch: dict[str, Tensor], flips: bool = False) -> tuple[Tensor, Tensor, list[Targets]]:
        """Canvases as at inference: pixels (B, 3, H, W) float32, padding (B, H, W) bool, and what is on them."""
        image, index = batch["image"], batch["index"]
        if flips:
            axes = [axis for axis in (-1, -2) if torch.rand(()) < 0.5]
            image, index = image.flip(axes), index.flip(axes)
        config, side = self.model.config, image.shape[-1]
        sizes = [(int(h), int(w)) for h, w in batch["size"]]
        scaled = [scaled_size(height, width, config) for height, width in sizes]
        unit = 2 * config.patch_size
        canvas = [-(-max(extents) // unit) * unit for extents in zip(*scaled, strict=True)]
        pixels = image.new_zeros(len(image), 3, *canvas, dtype=torch.float32)
        padding = torch.ones(len(image), *canvas, dtype=torch.bool, device=image.device)
        mean, std = (torch.tensor(numbers, device=image.device)[:, None, None] for numbers in (MEAN, STD))
        targets = []
        for number, ((height, width), (down, across)) in enumerate(zip(sizes, scaled, strict=True)):
            top, left = (side - height) // 2, (side - width) // 2
            inner = (slice(top, top + height), slice(left, left + width))
            shown = F.interpolate(image[number, :, *inner][None].float(), size=(down, across), mode="bilinear")[0]
            pixels[number, :, :down, :across] = (shown - mean) / std
            padding[number, :down, :across] = False
            labels = F.interpolate(index[number, *inner][None, None], size=(down, across), mode="nearest-exact")[0, 0]
            targets.append(self._targets(F.pad(labels, (0, canvas[1] - across, 0, canvas[0] - down)), (down, across)))
        return pixels, padding, targets

    def _targets(self, labels: Tensor, size: tuple[int, int]) -> Targets:
        """Objects on a canvas (H, W) uint8 of which `size` (h, w) is picture."""
        present = labels.unique()
        masks = labels[None] == present[present > 0][:, None, None]
        masks = masks[masks.flatten(1).sum(1) >= self.smallest]
        corners = masks_to_boxes_xyxy(masks) / torch.tensor([size[1], size[0]] * 2, device=labels.device)
        boxes = box_convert(corners, "xyxy", "cxcywh")
        return Targets(boxes, torch.zeros(len(masks), dtype=torch.long, device=labels.device), masks)

    def _mask_losses(self, maps: list[Tensor], targets: list[Targets]) -> tuple[Tensor, Tensor]:
        """Mean over objects: binary cross-entropy of all stages, squared error of the predicted IoU."""
        masks, judged, count = maps[0].sum() * 0, maps[0].sum() * 0, max(sum(len(t) for t in targets), 1)
        for number, target in enumerate(targets):
            if len(target):
                mask, judge = self._image_mask_losses([m[number : number + 1] for m in maps], target)
                masks, judged = masks + mask * len(target) / count, judged + judge * len(target) / count
        return masks, judged

    def _image_mask_losses(self, maps: list[Tensor], target: Targets) -> tuple[Tensor, Tensor]:
        config, head = self.model.config, self.model.mask_head
        boxes = _jittered(masks_to_boxes_xyxy(target.masks)) if self.training else masks_to_boxes_xyxy(target.masks)
        regions = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
        features = region_features(maps, regions, config.strides, config.roi_side)
        logits = head(features, target.labels, regions, head.semantic_maps(maps[0]))
        mask, loss = target.masks[:, None].float(), maps[0].new_zeros(())
        # Each object's mask is an image of its own to RoIAlign.
        places = torch.cat([torch.arange(len(boxes), device=boxes.device)[:, None].float(), boxes], 1)
        for weight, stage in zip(_STAGE_WEIGHTS, logits, strict=True):
            wanted = roi_align(mask, places, stage.shape[-1], sampling_ratio=1, aligned=True) >= 0.5
            loss = loss + weight * F.binary_cross_entropy_with_logits(stage, wanted.float())
        guess = self.model.judge(features, logits[1], target.labels)
        true = _iou(merge_stages([stage.detach() for stage in logits[1:]]) >= 0, wanted)
        return loss, F.mse_loss(guess, true)


def _jittered(boxes_xyxy: Tensor) -> Tensor:
    """Boxes (G, 4) moved and stretched a little, as a detector's are."""
    centres, sides = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2, boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    centres = centres + (torch.rand_like(centres) * 2 - 1) * _SHIFT * sides
    sides = sides * (1 + (torch.rand_like(sides) * 2 - 1) * _STRETCH)
    return torch.cat([centres - sides / 2, centres + sides / 2], 1)


def _iou(found: Tensor, true: Tensor) -> Tensor:
    """(G, 1, s, s) bool each, to (G,) float32; two empty masks have 0."""
    shared, either = (found & true).flatten(1).sum(1), (found | true).flatten(1).sum(1)
    return shared / either.clamp(min=1)
