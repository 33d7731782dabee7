"""`SamTask`: trains a SAM by its own interactive recipe (Segment Anything, section 3 and appendix A).

An image is encoded once for all of its prompts. The first prompt is a point on an object, a noisy box, or a point on
the background; some of the objects then get further rounds, each with a point from where the last mask was wrong and
that mask's logits as an additional prompt.

Where this differs from the paper: the images are small, so the losses are taken on the decoder's own low-res logits
against area-averaged masks; points on the background are among the prompts, and there the predicted IoU is trained
towards 0, so that everything mode can drop them; and linear maps of the image embedding (foreground, outline, and a
vector for each pixel that is near those of the same object) are trained along, and alone at first. They cost next to
nothing and teach a small encoder that starts from nothing much faster than prompts do.

Shape letters: B images, P prompts an image, L side of the low-res logits, S side that the encoder reads.
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

_VECTOR = 16  # numbers in a pixel's vector


@dataclass
class _Prompts:
    """Prompts of a batch, P an image, first those by points and then those by boxes.

    labels: (B, P) int64, object that is asked for, or 0 for none.
    points_xy: (B, P, K, 2) pixels of the encoder's frame; point_labels: (B, P, K) float32, 1 inside and 0 outside.
    boxes_xyxy: (B, R, 4) float32, boxes of the last R prompts, which stand in for the first point of those.
    """

    labels: Tensor
    points_xy: Tensor
    point_labels: Tensor
    boxes_xyxy: Tensor


class SamTask(CompactLearner):
    """A learner around a compact SAM.

    model: arguments of `build_sam`.
    object_points, background_points, boxes: prompts of each kind for an image.
    refined: how many of the object prompts (half points, half boxes) get further rounds.
    rounds: rounds of prompting in all.
    warmup_steps: training steps at the beginning in which only the auxiliary maps, hence the encoder, are trained.
    refine_after: training step from which on there are further rounds.
    precision: "bf16" runs networks under autocast, losses stay in float32; "fp32" does not.
    flips: mirror images at random. Left and right mean nothing to SAM.

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
        """Pictures with all their masks, at the side that the network reads."""
        return MaskPreparer(self.side, training)

    def learned_state(self) -> dict[str, Tensor]:
        """The SAM alone; the auxiliary maps have done their work."""
        return dict(self.sam.state_dict())

    def loss(self, batch: MaskBatch) -> dict[str, Tensor]:
        """Scalars "loss", "mask", "iou", "auxiliary", and "true_iou", mean over object prompts of the first round."""
        images, index = self.prepare(batch, self.flips and self.training)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            embeddings = self.sam.image_encoder(images)
            auxiliary = self._auxiliary_loss(embeddings, index)
            if self.training:
                self.step += 1
                if self.step <= self.warmup_steps:
                    return {"loss": auxiliary, "auxiliary": auxiliary}
            first, later, iou, true = self._prompted(embeddings.float(), index)
        total = first + later + self.iou_weight * iou + self.auxiliary_weight * auxiliary
        return {"loss": total, "mask": first, "refined": later, "iou": iou, "auxiliary": auxiliary, "true_iou": true}

    @torch.no_grad()
    def validate(self, batch: MaskBatch) -> dict[str, Tensor]:
        """The scalars of `loss`, without flips."""
        return self.loss(batch)

    def prepare(self, batch: MaskBatch, flips: bool = False) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) float32, normalised, in the top left corner as SAM has them; index (B, S, S) uint8."""
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
        """Foreground, outline, and pixels of the same object, from the image embedding alone."""
        maps = F.pixel_shuffle(self.auxiliary(embeddings).float(), 4)
        return _region_loss(maps[:, :2], index) + _vector_loss(maps[:, 2:], index)

    def _prompted(self, embeddings: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All rounds: mask loss of the first, of the later ones, IoU loss, mean true IoU of the first."""
        prompts = self._first_prompts(index)
        targets = self._targets(index, prompts.labels)
        sparse = self._embed(prompts)
        low, iou = decode_prompts(self.sam, embeddings, sparse, None)
        asked = prompts.labels > 0
        losses = mask_loss(low.float(), targets[:, :, None].expand_as(low))  # (B, P, 4)
        best, chosen = losses[..., 1:].min(-1)
        # A tenth of the mean keeps masks alive that are never the best, so that no output ends as noise.
        wanted = best + 0.1 * losses[..., 1:].mean(-1) + 0.5 * losses[..., 0]
        first = (wanted * asked).sum() / asked.sum().clamp(min=1)
        true = mask_iou(low, targets[:, :, None].expand_as(low)) * asked[..., None]
        iou_loss = iou_prediction_loss(iou.float(), true)
        shown = (true[..., 1:].gather(-1, chosen[..., None])[..., 0] * asked).sum() / asked.sum().clamp(min=1)
        later = first.new_zeros(())
        keep = self._refined_rows()
        previous = low[..., 1:, :, :].gather(2, chosen[..., None, None, None].expand(-1, -1, 1, *low.shape[-2:]))
        prompts, targets, previous = _take(prompts, keep, self.boxes), targets[:, keep], previous[:, keep, 0].detach()
        started = not self.training or bool(self.step > self.refine_after)
        for _ in range(self.rounds - 1 if keep and started else 0):
            prompts = self._corrected(prompts, previous.float(), targets)
            low, iou = decode_prompts(self.sam, embeddings, self._embed(prompts), previous)
            low, iou = low[:, :, 0], iou[:, :, 0]
            later = later + mask_loss(low.float(), targets).mean() / (self.rounds - 1)
            iou_loss = iou_loss + iou_prediction_loss(iou.float(), mask_iou(low, targets)) / (self.rounds - 1)
            previous = low.detach()
        return first, later, iou_loss, shown

    def _refined_rows(self) -> list[int]:
        """Positions of the prompts that get further rounds: object points from the front, boxes from the back."""
        boxes = min(self.refined // 2, self.boxes)
        points = min(self.refined - boxes, self.object_points)
        total = self.object_points + self.background_points + self.boxes
        return list(range(points)) + list(range(total - boxes, total))

    def _targets(self, index: Tensor, labels: Tensor) -> Tensor:
        """Share of each low-res cell that the asked object covers, (B, P, L, L) float32."""
        masks = (index[:, None] == labels[:, :, None, None]) & (labels[:, :, None, None] > 0)
        return F.adaptive_avg_pool2d(masks.float(), (self.low_side, self.low_side))

    def _first_prompts(self, index: Tensor) -> _Prompts:
        labels = self._draw_labels(index)
        masks = index[:, None] == labels[:, :, None, None]
        points = _random_points(masks)
        boxes = _noisy_boxes(masks[:, labels.shape[1] - self.boxes :])
        return _Prompts(labels, points[:, :, None], torch.ones_like(labels, dtype=torch.float32)[:, :, None], boxes)

    def _draw_labels(self, index: Tensor) -> Tensor:
        """(B, P) int64: object points first, then background, then boxes; objects as evenly as their number allows."""
        wanted = self.object_points + self.boxes
        rows = []
        for picture in index:
            present = picture.unique().long()
            present = present[present > 0]
            if len(present) == 0:
                rows.append(present.new_zeros(wanted))
                continue
            order = torch.cat([present[torch.randperm(len(present))] for _ in range(-(-wanted // len(present)))])
            rows.append(order[:wanted])
        drawn = torch.stack(rows)
        nothing = drawn.new_zeros(len(index), self.background_points)
        return torch.cat([drawn[:, : self.object_points], nothing, drawn[:, self.object_points :]], 1)

    def _embed(self, prompts: _Prompts) -> Tensor:
        """Sparse embeddings (B, P, T, C): a padding token ends prompts by points, two corners end prompts by boxes."""
        count, by_box = prompts.labels.shape[1], prompts.boxes_xyxy.shape[1]
        by_point = count - by_box
        encoder = self.sam.prompt_encoder
        parts = []
        if by_point:
            xy, labels = prompts.points_xy[:, :by_point].flatten(0, 1), prompts.point_labels[:, :by_point].flatten(0, 1)
            parts.append(encoder.points(xy, labels).unflatten(0, (-1, by_point)))
        if by_box:
            xy, labels = prompts.points_xy[:, by_point:, 1:], prompts.point_labels[:, by_point:, 1:]
            corners = encoder.boxes(prompts.boxes_xyxy.flatten(0, 1))
            points = encoder.points(xy.flatten(0, 1), labels.flatten(0, 1), end=False)
            parts.append(torch.cat([points, corners], 1).unflatten(0, (-1, by_box)))
        return torch.cat(parts, 1)

    def _corrected(self, prompts: _Prompts, low: Tensor, targets: Tensor) -> _Prompts:
        """The same prompts with one more point each, from where the mask in `low` (B, P, L, L) is wrong."""
        true = targets >= 0.5
        wrong = (low > 0) != true
        nothing_wrong = ~wrong.flatten(2).any(-1)
        wrong |= nothing_wrong[..., None, None] & true
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
    """Foreground and outline of all objects: (B, 2, L, L) and (B, S, S) to a scalar."""
    outline = torch.zeros_like(index, dtype=torch.bool)
    outline[:, 1:] |= index[:, 1:] != index[:, :-1]
    outline[:, :, 1:] |= index[:, :, 1:] != index[:, :, :-1]
    maps = F.adaptive_avg_pool2d(torch.stack([index > 0, outline], 1).float(), (logits.shape[-2], logits.shape[-1]))
    maps[:, 1] = (maps[:, 1] > 0).float()
    return F.binary_cross_entropy_with_logits(logits, maps) + dice_loss(logits, maps).mean()


def _vector_loss(vectors: Tensor, index: Tensor, samples: int = 16) -> Tensor:
    """Each object's mask by nearness to the vector of a pixel in it: (B, C, L, L) and (B, S, S) to a scalar."""
    labels = F.interpolate(index[:, None], size=vectors.shape[-2:], mode="nearest-exact")[:, 0].flatten(1)
    # Small objects are to be drawn as often as large ones.
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


def _take(prompts: _Prompts, keep: list[int], boxes: int) -> _Prompts:
    first_box = prompts.labels.shape[1] - boxes
    kept_boxes = [k - first_box for k in keep if k >= first_box]
    return _Prompts(
        prompts.labels[:, keep],
        prompts.points_xy[:, keep],
        prompts.point_labels[:, keep],
        prompts.boxes_xyxy[:, kept_boxes],
    )


def _to_corner(image: Tensor, index: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Moves pictures from the middle of their padding to its top left corner."""
    side = image.shape[-1]
    found = [(int(h), int(w)) for h, w in sizes]
    if all(size == (side, side) for size in found):
        return image, index, found
    shifts = [(-((side - h) // 2), -((side - w) // 2)) for h, w in found]
    image = torch.stack([i.roll(s, (-2, -1)) for i, s in zip(image, shifts, strict=True)])
    index = torch.stack([i.roll(s, (-2, -1)) for i, s in zip(index, shifts, strict=True)])
    return image, index, found


def _random_points(masks: Tensor) -> Tensor:
    """One pixel (x, y) of each mask, uniformly: (B, P, H, W) bool to (B, P, 2) float32. Anywhere in an empty mask."""
    flat = masks.flatten(2)
    running = flat.cumsum(-1, dtype=torch.int32)
    rank = (torch.rand(flat.shape[:2], device=flat.device) * running[..., -1]).to(torch.int32) + 1
    position = torch.searchsorted(running, rank[..., None])[..., 0].clamp(max=flat.shape[-1] - 1)
    width = masks.shape[-1]
    return torch.stack([position % width, position // width], -1).float()


def _noisy_boxes(masks: Tensor) -> Tensor:
    """Tight boxes with SAM's noise, a tenth of the box's side and at most 20 px of 1024: (B, R, H, W) to (B, R, 4)."""
    columns, rows = masks.any(2).int(), masks.any(3).int()
    side = masks.shape[-1]
    x0, y0 = columns.argmax(-1), rows.argmax(-1)
    x1, y1 = side - columns.flip(-1).argmax(-1), side - rows.flip(-1).argmax(-1)
    boxes = torch.stack([x0, y0, x1, y1], -1).float()
    extent = torch.stack([x1 - x0, y1 - y0, x1 - x0, y1 - y0], -1).float()
    noise = torch.randn_like(boxes) * 0.1 * extent
    limit = max(2.0, side * 20 / 1024)
    return (boxes + noise.clamp(-limit, limit)).clamp(0, side)
