"""`SamTask`: trains a SAM by its own interactive recipe (Segment Anything, section 3 and appendix A).

An image is encoded once for all of its prompts. The first prompt is a point on an object, a noisy box, or a point on
the background. Some of the objects then have further rounds. Each adds a point where the last mask was wrong, and that
mask's logits as a prompt.

Differences from the paper:
- Images are small, so the losses compare the decoder's low-res logits with area-averaged masks.
- Points on the background are prompts, too. Their predicted IoU is trained towards 0, so that everything mode drops
  them.
- Auxiliary linear maps of the image embedding are trained with the rest, and alone at first: foreground, outline, and
  a vector of each pixel that is near those of the same object. They cost little, and a small encoder with random
  weights learns much faster from them than from prompts.

Shape letters: B images, P prompts per image, L side of the low-res logits, S side of the encoder's input.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends.sam import SYSTEM, build_sam, decode_prompts
from maskselect.losses.mask import dice_loss, iou_prediction_loss, mask_iou, mask_loss
from maskselect.recipes.compact.learner import CompactLearner
from maskselect.structures.batches import MaskBatch
from maskselect.structures.groups import PrepareSettings
from maskselect.systems.picture_batches import MaskPreparer

_VECTOR = 16  # components of a pixel's vector


@dataclass
class _Prompts:
    """P prompts per image: point prompts, followed by box prompts.

    Attributes:
        labels: (B, P) int64, the target object, 0 for none.
        points_xy: (B, P, K, 2) float32, in pixels of the encoder's input.
        point_labels: (B, P, K) float32, 1 inside and 0 outside the target.
        boxes_xyxy: (B, R, 4) float32, the boxes of the last R prompts; they replace the first point of these.
    """

    labels: Tensor
    points_xy: Tensor
    point_labels: Tensor
    boxes_xyxy: Tensor


class SamTask(CompactLearner):
    """A learner that trains a compact SAM.

    Args:
        model: arguments of `build_sam`.
        object_points, background_points, boxes: number of prompts of each kind per image.
        refined: number of object prompts (half points, half boxes) with further rounds.
        rounds: number of rounds, the first included.
        warmup_steps: number of first training steps that train only the encoder, by the auxiliary maps.
        refine_after: training step after which further rounds begin.
        iou_weight, auxiliary_weight: weights of these losses; the mask losses have weight 1.
        precision: "bf16" runs the networks under autocast, with losses in float32; "fp32" does not.
        flips: flip images at random. SAM does not distinguish left and right.
    """

    name = SYSTEM

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        object_points: int = 4,
        background_points: int = 2,
        boxes: int = 2,
        refined: int = 3,
        rounds: int = 3,
        warmup_steps: int = 0,
        refine_after: int = 0,
        iou_weight: float = 1.0,
        auxiliary_weight: float = 1.0,
        precision: str = "bf16",
        flips: bool = True,
    ) -> None:
        super().__init__()
        self.sam = build_sam(**(model or {}))
        self.object_points, self.background_points, self.boxes = object_points, background_points, boxes
        self.refined, self.rounds = refined, rounds
        self.iou_weight, self.auxiliary_weight = iou_weight, auxiliary_weight
        self.bf16, self.flips = precision == "bf16", flips
        self.side = self.sam.image_encoder.img_size
        self.low_side = self.sam.prompt_encoder.mask_input_size[0]
        self.warmup_steps, self.refine_after = warmup_steps, refine_after
        self.auxiliary = nn.Conv2d(self.sam.prompt_encoder.embed_dim, (2 + _VECTOR) * 16, 1)
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def preparer(self, settings: PrepareSettings, training: bool) -> MaskPreparer:
        """Prepares pictures with all their masks, at the side of the encoder's input."""
        return MaskPreparer(self.side, training)

    def learned_state(self) -> dict[str, Tensor]:
        """The SAM's tensors, without the auxiliary maps."""
        return dict(self.sam.state_dict())

    def loss(self, batch: MaskBatch) -> dict[str, Tensor]:
        """Losses of a batch.

        Returns:
            Scalars: "loss", "mask" of the first round, "refined" of the later rounds, "iou", "auxiliary", and
            "true_iou", the mean IoU of the object prompts in the first round. In warm-up steps only "loss" and
            "auxiliary".
        """
        images, index = self.prepare(batch, self.flips and self.training)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            embeddings = self.sam.image_encoder(images)
            auxiliary = self._auxiliary_loss(embeddings, index)
            if self.training:
                self.step += 1
                if self.step <= self.warmup_steps:
                    return {"loss": auxiliary, "auxiliary": auxiliary}
            first, later, iou, mean_iou = self._prompt_losses(embeddings.float(), index)
        total = first + later + self.iou_weight * iou + self.auxiliary_weight * auxiliary
        losses = {"loss": total, "mask": first, "refined": later, "iou": iou, "auxiliary": auxiliary}
        return losses | {"true_iou": mean_iou}

    @torch.no_grad()
    def validate(self, batch: MaskBatch) -> dict[str, Tensor]:
        """The scalars of `loss`, without flips."""
        return self.loss(batch)

    def prepare(self, batch: MaskBatch, flips: bool = False) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) float32, normalised, in the top left corner as in SAM, and index maps (B, S, S) uint8."""
        image, index = batch.images, batch.index()
        if flips:
            axes = [a for a in (-1, -2) if torch.rand(()) < 0.5]
            image, index = image.flip(axes), index.flip(axes)
        image, index, sizes = _to_corner(image, index, batch.sizes)
        scale = self.side / image.shape[-1]
        pixels = F.interpolate(image.float(), size=(self.side, self.side), mode="bilinear", antialias=True)
        pixels = (pixels - self.sam.pixel_mean) / self.sam.pixel_std
        for k, (height, width) in enumerate(sizes):  # SAM pads after normalising
            pixels[k, :, round(height * scale) :] = 0
            pixels[k, :, :, round(width * scale) :] = 0
        labels = F.interpolate(index[:, None], size=(self.side, self.side), mode="nearest-exact")[:, 0]
        return pixels, labels

    def _auxiliary_loss(self, embeddings: Tensor, index: Tensor) -> Tensor:
        """Loss of the maps of the image embedding: foreground, outline and vectors."""
        maps = F.pixel_shuffle(self.auxiliary(embeddings).float(), 4)
        return _region_loss(maps[:, :2], index) + _vector_loss(maps[:, 2:], index)

    def _prompt_losses(self, embeddings: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All rounds: mask loss of the first and of the later ones, IoU loss, mean IoU of the first."""
        prompts = self._first_prompts(index)
        targets = self._targets(index, prompts.labels)
        sparse = self._embed(prompts)
        low, iou = decode_prompts(self.sam, embeddings, sparse, None)
        on_object = prompts.labels > 0
        losses = mask_loss(low.float(), targets[:, :, None].expand_as(low))  # (B, P, 4)
        best, chosen = losses[..., 1:].min(-1)
        # A tenth of the mean also trains masks that are never the best; they would otherwise stay noise.
        combined = best + 0.1 * losses[..., 1:].mean(-1) + 0.5 * losses[..., 0]
        count = on_object.sum().clamp(min=1)
        first = (combined * on_object).sum() / count
        true_iou = mask_iou(low, targets[:, :, None].expand_as(low)) * on_object[..., None]
        iou_loss = iou_prediction_loss(iou.float(), true_iou)
        mean_iou = (true_iou[..., 1:].gather(-1, chosen[..., None])[..., 0] * on_object).sum() / count
        later = first.new_zeros(())
        rows = self._refined_rows()
        previous = low[..., 1:, :, :].gather(2, chosen[..., None, None, None].expand(-1, -1, 1, *low.shape[-2:]))
        prompts, targets, previous = _take(prompts, rows, self.boxes), targets[:, rows], previous[:, rows, 0].detach()
        refines = not self.training or bool(self.step > self.refine_after)
        for _ in range(self.rounds - 1 if rows and refines else 0):
            prompts = self._add_corrections(prompts, previous.float(), targets)
            low, iou = decode_prompts(self.sam, embeddings, self._embed(prompts), previous)
            low, iou = low[:, :, 0], iou[:, :, 0]
            later = later + mask_loss(low.float(), targets).mean() / (self.rounds - 1)
            iou_loss = iou_loss + iou_prediction_loss(iou.float(), mask_iou(low, targets)) / (self.rounds - 1)
            previous = low.detach()
        return first, later, iou_loss, mean_iou

    def _refined_rows(self) -> list[int]:
        """Indices of the prompts with further rounds: the first object points and the last boxes."""
        boxes = min(self.refined // 2, self.boxes)
        points = min(self.refined - boxes, self.object_points)
        total = self.object_points + self.background_points + self.boxes
        return list(range(points)) + list(range(total - boxes, total))

    def _targets(self, index: Tensor, labels: Tensor) -> Tensor:
        """Share of each low-res cell that the target object covers: (B, P, L, L) float32."""
        masks = (index[:, None] == labels[:, :, None, None]) & (labels[:, :, None, None] > 0)
        return F.adaptive_avg_pool2d(masks.float(), (self.low_side, self.low_side))

    def _first_prompts(self, index: Tensor) -> _Prompts:
        labels = self._draw_labels(index)
        masks = index[:, None] == labels[:, :, None, None]
        points = _random_points(masks)
        boxes = _noisy_boxes(masks[:, labels.shape[1] - self.boxes :])
        return _Prompts(labels, points[:, :, None], torch.ones_like(labels, dtype=torch.float32)[:, :, None], boxes)

    def _draw_labels(self, index: Tensor) -> Tensor:
        """(B, P) int64: object points, background points, boxes. Objects are drawn as evenly as possible."""
        count = self.object_points + self.boxes
        rows = []
        for picture in index:
            present = picture.unique().long()
            present = present[present > 0]
            if len(present) == 0:
                rows.append(present.new_zeros(count))
                continue
            order = torch.cat([present[torch.randperm(len(present))] for _ in range(-(-count // len(present)))])
            rows.append(order[:count])
        drawn = torch.stack(rows)
        background = drawn.new_zeros(len(index), self.background_points)
        return torch.cat([drawn[:, : self.object_points], background, drawn[:, self.object_points :]], 1)

    def _embed(self, prompts: _Prompts) -> Tensor:
        """Sparse embeddings (B, P, T, C). Point prompts end with a padding token, box prompts with two corners."""
        count, by_box = prompts.labels.shape[1], prompts.boxes_xyxy.shape[1]
        by_points = count - by_box
        encoder = self.sam.prompt_encoder
        parts = []
        if by_points:
            xy, labels = prompts.points_xy[:, :by_points], prompts.point_labels[:, :by_points]
            parts.append(encoder.points(xy.flatten(0, 1), labels.flatten(0, 1)).unflatten(0, (-1, by_points)))
        if by_box:
            xy, labels = prompts.points_xy[:, by_points:, 1:], prompts.point_labels[:, by_points:, 1:]
            corners = encoder.boxes(prompts.boxes_xyxy.flatten(0, 1))
            points = encoder.points(xy.flatten(0, 1), labels.flatten(0, 1), end=False)
            parts.append(torch.cat([points, corners], 1).unflatten(0, (-1, by_box)))
        return torch.cat(parts, 1)

    def _add_corrections(self, prompts: _Prompts, low: Tensor, targets: Tensor) -> _Prompts:
        """Add a point to each prompt where its mask in the logits `low` (B, P, L, L) is wrong."""
        true = targets >= 0.5
        wrong = (low > 0) != true
        all_right = ~wrong.flatten(2).any(-1)
        wrong |= all_right[..., None, None] & true
        xy = _random_points(wrong)
        cells = xy.long()
        flat = cells[..., 1] * self.low_side + cells[..., 0]
        inside = true.flatten(2).gather(-1, flat[..., None])[..., 0].float()
        scale = self.side / self.low_side
        points = torch.cat([prompts.points_xy, ((xy + 0.5) * scale - 0.5)[:, :, None]], 2)
        return _Prompts(
            prompts.labels, points, torch.cat([prompts.point_labels, inside[..., None]], 2), prompts.boxes_xyxy
        )


def _region_loss(logits: Tensor, index: Tensor) -> Tensor:
    """Loss of foreground and outline of all objects: (B, 2, L, L) logits and (B, S, S) index maps to a scalar."""
    outline = torch.zeros_like(index, dtype=torch.bool)
    outline[:, 1:] |= index[:, 1:] != index[:, :-1]
    outline[:, :, 1:] |= index[:, :, 1:] != index[:, :, :-1]
    maps = F.adaptive_avg_pool2d(torch.stack([index > 0, outline], 1).float(), (logits.shape[-2], logits.shape[-1]))
    maps[:, 1] = (maps[:, 1] > 0).float()
    return F.binary_cross_entropy_with_logits(logits, maps) + dice_loss(logits, maps).mean()


def _vector_loss(vectors: Tensor, index: Tensor, samples: int = 16) -> Tensor:
    """Mask loss of objects, predicted by the distance of vectors to the vector of a pixel of the object.

    Args:
        vectors: (B, C, L, L).
        index: (B, S, S).
        samples: object pixels drawn per image.
    """
    labels = F.interpolate(index[:, None], size=vectors.shape[-2:], mode="nearest-exact")[:, 0].flatten(1)
    # Small objects are drawn as often as large ones.
    sizes = torch.zeros(len(labels), 256).scatter_add_(1, labels.long(), torch.ones_like(labels, dtype=torch.float32))
    weight = (labels > 0) / sizes.gather(1, labels.long()) + 1e-9
    chosen = torch.multinomial(weight, samples, replacement=True)
    flat = vectors.flatten(2)
    seeds = flat.gather(2, chosen[:, None].expand(-1, flat.shape[1], -1))
    squares = seeds.square().sum(1)[:, :, None] + flat.square().sum(1)[:, None]
    logits = 4.0 - (squares - 2 * seeds.transpose(1, 2) @ flat)
    same = (labels[:, None] == labels.gather(1, chosen)[:, :, None]).float()
    side = vectors.shape[-1]
    return mask_loss(logits.unflatten(2, (side, side)), same.unflatten(2, (side, side))).mean()


def _take(prompts: _Prompts, rows: list[int], boxes: int) -> _Prompts:
    first_box = prompts.labels.shape[1] - boxes
    box_rows = [row - first_box for row in rows if row >= first_box]
    return _Prompts(
        prompts.labels[:, rows],
        prompts.points_xy[:, rows],
        prompts.point_labels[:, rows],
        prompts.boxes_xyxy[:, box_rows],
    )


def _to_corner(image: Tensor, index: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Move pictures from the centre of their square to the top left corner, and return the (height, width) of each."""
    side = image.shape[-1]
    pairs = [(int(h), int(w)) for h, w in sizes]
    if all(size == (side, side) for size in pairs):
        return image, index, pairs
    shifts = [(-((side - h) // 2), -((side - w) // 2)) for h, w in pairs]
    image = torch.stack([i.roll(s, (-2, -1)) for i, s in zip(image, shifts, strict=True)])
    index = torch.stack([i.roll(s, (-2, -1)) for i, s in zip(index, shifts, strict=True)])
    return image, index, pairs


def _random_points(masks: Tensor) -> Tensor:
    """A random pixel (x, y) of each mask, the last one if it is empty: (B, P, H, W) bool to (B, P, 2) float32."""
    flat = masks.flatten(2)
    running = flat.cumsum(-1, dtype=torch.int32)
    rank = (torch.rand(flat.shape[:2], device=flat.device) * running[..., -1]).to(torch.int32) + 1
    position = torch.searchsorted(running, rank[..., None])[..., 0].clamp(max=flat.shape[-1] - 1)
    width = masks.shape[-1]
    return torch.stack([position % width, position // width], -1).float()


def _noisy_boxes(masks: Tensor) -> Tensor:
    """Tight boxes with SAM's noise, 0.1 of a box's side and at most 20 px of 1024: (B, R, H, W) to (B, R, 4)."""
    columns, rows = masks.any(2).int(), masks.any(3).int()
    side = masks.shape[-1]
    x0, y0 = columns.argmax(-1), rows.argmax(-1)
    x1, y1 = side - columns.flip(-1).argmax(-1), side - rows.flip(-1).argmax(-1)
    boxes = torch.stack([x0, y0, x1, y1], -1).float()
    extent = torch.stack([x1 - x0, y1 - y0, x1 - x0, y1 - y0], -1).float()
    noise = torch.randn_like(boxes) * 0.1 * extent
    limit = max(2.0, side * 20 / 1024)
    return (boxes + noise.clamp(-limit, limit)).clamp(0, side)
