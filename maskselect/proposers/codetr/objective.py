"""`CoDetrObjective`: trains a compact Co-DETR on scenes, from nothing, in minutes.

What is kept: one-to-one assignment for every decoder layer, every object several times among all cells of the encoder
(if only the chosen cells were trained, a small model with few queries would rarely look where objects are), and
RefineMask's losses on the mask stages. What helps and is thrown away: a head of another assignment on the encoder's
cells, which is what Co-DETR is about; denoising queries; and a head on the backbone's pixels, which trains the backbone
alone at first. A DETR learns slowly because what it reads means nothing yet, and such a step costs a tenth of a whole
one. There is one class, a thing, since candidates need no other.

Shape letters: B images, G objects of an image, C channels of the backbone, H W pixels of the canvas, S side of a scene.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.proposers.codetr.assignment import Targets, set_loss
from maskselect.proposers.codetr.auxiliary import AuxiliaryHead
from maskselect.proposers.codetr.config import compact_config
from maskselect.proposers.codetr.denoising import Denoising
from maskselect.proposers.codetr.frame import MEAN, STD, scaled_size
from maskselect.proposers.codetr.importer import SYSTEM
from maskselect.proposers.codetr.mask_objective import mask_losses
from maskselect.proposers.codetr.model import CoDetr
from maskselect.proposers.codetr.pixel_head import PixelHead
from maskselect.proposers.codetr.positions import Layout
from maskselect.proposers.codetr.queries import Predictions


class CoDetrObjective(nn.Module):
    """A `Trainable` around a compact Co-DETR.

    model: sizes that differ from `config.compact_config`; classes must stay 1.
    repeats: how often an object is assigned among the encoder's cells.
    mask_weight, judge_weight: of the mask stages and of the predicted IoU; classes and boxes weigh as in
        DINO's assignment.
    denoising_weight, auxiliary_weight, pixel_weight: of what is thrown away; 0 leaves it out.
    warmup_steps: training steps at the beginning in which the backbone alone is trained, by its pixels.
    shift: how far, in sides, the regions that masks are trained in are off the true box.
    masks_a_step: objects of a batch whose masks are trained, drawn at random; None for all.
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
        denoising_weight: float = 1.0,
        auxiliary_weight: float = 1.0,
        pixel_weight: float = 1.0,
        warmup_steps: int = 0,
        shift: float = 0.1,
        masks_a_step: int | None = None,
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
        self.denoising_weight, self.auxiliary_weight = denoising_weight, auxiliary_weight
        self.pixel_weight, self.warmup_steps = pixel_weight, warmup_steps
        self.shift, self.masks_a_step, self.smallest, self.flips = shift, masks_a_step, smallest, flips
        self.precision = torch.bfloat16 if precision == "bf16" else torch.float32
        self.denoising = Denoising(config.dim) if denoising_weight else None
        self.auxiliary = AuxiliaryHead(config.dim) if auxiliary_weight else None
        self.pixels = PixelHead(config.embed_dim) if pixel_weight or warmup_steps else None
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def learned_state(self) -> dict[str, Tensor]:
        """The model's weights under the names that `importer.load_codetr` reads."""
        return dict(self.model.state_dict())

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars "loss", "class", "l1", "giou" (sums over layers), "mask" and "judge".

        In training also "denoising", "auxiliary" and "pixels", unless they have no weight, and no more than "loss" and
        "pixels" during the first `warmup_steps`.
        """
        pixels, padding, targets = self.prepare(batch, self.flips and self.training)
        alone = self.training and int(self.step) < self.warmup_steps
        self.step += int(self.training)
        with torch.autocast(pixels.device.type, self.precision, enabled=self.precision != torch.float32):
            features = self.model.backbone(pixels)
            maps = [] if alone else self.model.neck(features)
        if alone and self.pixels is not None:
            loss = self.pixels.loss(features, targets)
            return {"loss": loss, "pixels": loss}
        seen = self.model.query_head([m.float() for m in maps], padding, every_layer=True)
        parts = self._found_losses(seen, targets)
        if self.training:
            parts |= self._helper_losses(features, seen.maps, padding, targets)
        weights = {"mask": self.mask_weight, "judge": self.judge_weight}
        total = torch.stack([weights.get(name, 1.0) * value for name, value in parts.items()]).sum()
        return {"loss": total, **parts}

    def _found_losses(self, seen: Predictions, targets: list[Targets]) -> dict[str, Tensor]:
        """Losses of what the model gives at inference: boxes of every layer, masks, predicted IoU."""
        layers = [set_loss(seen.cell_logits, seen.cell_boxes, targets, self.repeats)]
        layers += [set_loss(*layer, targets) for layer in zip(seen.logits, seen.boxes, strict=True)]
        parts = {name: torch.stack([layer[name] for layer in layers]).sum() for name in layers[0]}
        shift, limit = (self.shift, self.masks_a_step) if self.training else (0.0, None)
        parts["mask"], parts["judge"] = mask_losses(self.model, seen.maps, targets, shift, limit)
        return parts

    def _helper_losses(
        self, features: Tensor, maps: list[Tensor], padding: Tensor, targets: list[Targets]
    ) -> dict[str, Tensor]:
        """Weighted losses of what is thrown away after training. features: (B, C, h, w), the backbone's."""
        layout = Layout.of(padding, [(m.shape[-2], m.shape[-1]) for m in maps])
        memory, nothing = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1), maps[0].new_zeros(())
        parts = {}
        if self.denoising is not None:
            layers = self.denoising.losses(self.model.query_head, memory, layout, targets)
            parts["denoising"] = sum((v for layer in layers for v in layer.values()), nothing) * self.denoising_weight
        if self.auxiliary is not None:
            losses = self.auxiliary.loss(memory, layout, targets)
            parts["auxiliary"] = sum(losses.values(), nothing) * self.auxiliary_weight
        if self.pixels is not None:
            parts["pixels"] = self.pixels.loss(features, targets) * self.pixel_weight
        return parts

    @torch.no_grad()
    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scalars of `loss`, without flips."""
        return self.loss(batch)

    def prepare(self, batch: dict[str, Tensor], flips: bool = False) -> tuple[Tensor, Tensor, list[Targets]]:
        """Canvases as at inference: pixels (B, 3, H, W) float32, padding (B, H, W) bool, and what is on them."""
        image, index = batch["image"], batch["index"]
        axes = [axis for axis in (-1, -2) if torch.rand((), dtype=torch.float32) < 0.5] if flips else []
        config, side = self.model.config, image.shape[-1]
        sizes = [(int(h), int(w)) for h, w in batch["size"]]
        scaled = [scaled_size(height, width, config) for height, width in sizes]
        unit = 2 * config.patch_size
        canvas = [-(-max(extents) // unit) * unit for extents in zip(*scaled, strict=True)]
        pixels = image.new_zeros(len(image), 3, *canvas, dtype=torch.float32)
        padding = torch.ones(len(image), *canvas, dtype=torch.bool, device=image.device)
        mean, std = (
            torch.tensor(numbers, dtype=torch.float32, device=image.device)[:, None, None] for numbers in (MEAN, STD)
        )
        targets = []
        for number, ((height, width), (down, across)) in enumerate(zip(sizes, scaled, strict=True)):
            top, left = (side - height) // 2, (side - width) // 2
            inner = (slice(top, top + height), slice(left, left + width))
            picture, things = image[number, :, *inner].flip(axes), index[number, *inner].flip(axes)
            shown = F.interpolate(picture[None].float(), size=(down, across), mode="bilinear")[0]
            pixels[number, :, :down, :across] = (shown - mean) / std
            padding[number, :down, :across] = False
            labels = F.interpolate(things[None, None], size=(down, across), mode="nearest-exact")[0, 0]
            targets.append(self._targets(F.pad(labels, (0, canvas[1] - across, 0, canvas[0] - down)), (down, across)))
        return pixels, padding, targets

    def _targets(self, labels: Tensor, size: tuple[int, int]) -> Targets:
        """Objects on a canvas (H, W) uint8 of which `size` (h, w) is picture."""
        present = labels.unique()
        masks = labels[None] == present[present > 0][:, None, None]
        masks = masks[masks.flatten(1).sum(1) >= self.smallest]
        corners = masks_to_boxes_xyxy(masks) / torch.tensor(
            [size[1], size[0]] * 2, dtype=torch.int64, device=labels.device
        )
        boxes = box_convert(corners, "xyxy", "cxcywh")
        return Targets(boxes, torch.zeros(len(masks), dtype=torch.long, device=labels.device), masks)
