"""Pretraining of a compact encoder on scenes, with linear heads on mask-pooled features.

Features are pooled exactly as in RAS. The heads predict category, colour, texture, size and the IoU of a mask with its
object, so that the mask projector can later read them linearly from the features of the frozen encoder.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.encoders.frozen import FrozenEncoder
from maskselect.ops.pooling import cell_weights
from maskselect.recipes.compact.augment import flip, rescale, swap_background, vary_light
from maskselect.recipes.compact.encoder_masks import CLEAN, NOISY, LabelledMasks, clean_masks, mixed_masks
from maskselect.recipes.compact.learner import CompactLearner
from maskselect.scenes.spec import CATEGORIES, COLOURS, SIZES, TEXTURES
from maskselect.scenes.stream import scene_of
from maskselect.structures.batches import MaskBatch
from maskselect.structures.groups import PrepareSettings
from maskselect.systems.picture_batches import MaskPreparer

ATTRIBUTES = {"category": len(CATEGORIES), "colour": len(COLOURS), "texture": len(TEXTURES), "size": len(SIZES)}
"""Number of classes of each attribute. Category, colour and texture have one more, "not one object"."""

IGNORE = -100


class EncoderTask(CompactLearner):
    """A learner that pretrains one encoder with linear heads on mask-pooled features.

    A mask has the classes of an object that fills at least the share `accept` of it. It is "not one object" if no
    object fills the share `reject`. Otherwise its classes are ignored. The share decides, not the IoU, because the mean
    feature of a part of an object hardly differs from that of the whole. The quality head predicts the IoU.

    Args:
        encoder: has random weights, and is thawed here; `encoder.state_dict()` is saved.
        mask_side: side of the masks in pixels.
        junk: junk masks per image.
        rescale_share: share of batches whose images are scaled and moved; the size is ignored in these.
        accept, reject: shares of a mask, see above.
        smoothing: label smoothing of the cross entropies.
    """

    name = "encoder"

    def __init__(
        self,
        encoder: FrozenEncoder,
        mask_side: int = 64,
        junk: int = 4,
        rescale_share: float = 0.5,
        accept: float = 0.75,
        reject: float = 0.3,
        smoothing: float = 0.02,
    ) -> None:
        super().__init__()
        encoder.thaw()
        self.encoder = encoder
        channels = encoder.info.channels
        heads = {name: nn.Linear(channels, count + (name != "size")) for name, count in ATTRIBUTES.items()}
        heads["quality"] = nn.Linear(channels, 1)
        self.heads = nn.ModuleDict(heads)
        self.mask_side, self.junk, self.rescale_share = mask_side, junk, rescale_share
        self.accept, self.reject, self.smoothing = accept, reject, smoothing

    def preparer(self, settings: PrepareSettings, training: bool) -> MaskPreparer:
        """Prepares pictures with all their masks, without augmentation, which `loss` does."""
        return MaskPreparer(self.encoder.info.input_size)

    def learned_state(self) -> dict[str, Tensor]:
        """The encoder's tensors, without the heads."""
        return dict(self.encoder.state_dict())

    def loss(self, batch: MaskBatch) -> dict[str, Tensor]:
        """Sum of the attributes' cross entropies and the IoU's binary cross entropy.

        Args:
            batch: scenes, whose ids determine the classes of their objects.

        Returns:
            Scalars: "loss" and each of its terms.
        """
        images, index = batch.images.float() / 255, batch.index()
        labels = scene_labels(batch).to(index.device)
        images, index = flip(images, index)
        rescaled = bool(torch.rand(()) < self.rescale_share)
        if rescaled:
            images, index = rescale(images, index)
        images = swap_background(images, index)
        masks = mixed_masks(_subsample(index, self.mask_side), labels.shape[1], self.junk)
        outputs = self.apply_heads(self.encoder(vary_light(images)), masks.masks)
        targets = self.targets(masks, labels, with_size=not rescaled)
        losses = {}
        for name in ATTRIBUTES:
            labelled = masks.valid & (targets[name] != IGNORE)
            if labelled.any():
                logits = outputs[name][labelled]
                losses[name] = F.cross_entropy(logits, targets[name][labelled], label_smoothing=self.smoothing)
        quality = outputs["quality"][..., 0][masks.valid]
        losses["quality"] = F.binary_cross_entropy_with_logits(quality, masks.iou[masks.valid])
        return {"loss": torch.stack(list(losses.values())).sum(), **{k: v.detach() for k, v in losses.items()}}

    @torch.no_grad()
    def validate(self, batch: MaskBatch) -> dict[str, Tensor]:
        """Metrics of a batch of scenes.

        Returns:
            Accuracies in [0, 1] on ground truth: each attribute, "joint" (category, colour and texture), and
            "category_small", "colour_small" and "texture_small" for small objects. "quality_error" is the mean absolute
            error of the IoU of corrupted masks.
        """
        images, index = batch.images.float() / 255, batch.index()
        labels = scene_labels(batch).to(index.device)
        masks = clean_masks(index, labels.shape[1])
        valid = masks.valid & (labels[..., 0] != IGNORE)
        has_size = valid & (labels[..., 3] != IGNORE)
        features = self.encoder(images)
        outputs = self.apply_heads(features, masks.masks)
        correct = {
            name: outputs[name][..., :count].argmax(-1) == labels[..., i]
            for i, (name, count) in enumerate(ATTRIBUTES.items())
        }
        correct["joint"] = correct["category"] & correct["colour"] & correct["texture"]
        labelled = {name: has_size if name == "size" else valid for name in correct}
        metrics = {name: hits[labelled[name]].float().mean() for name, hits in correct.items() if labelled[name].any()}
        small = valid & (labels[..., 3] == 0)
        if small.any():
            metrics |= {f"{n}_small": correct[n][small].float().mean() for n in ("category", "colour", "texture")}
        mixed = mixed_masks(_subsample(index, self.mask_side), labels.shape[1], self.junk)
        predicted = self.apply_heads(features, mixed.masks)["quality"][..., 0].sigmoid()
        corrupted = mixed.valid & (mixed.kind == NOISY)
        metrics["quality_error"] = (predicted - mixed.iou)[corrupted].abs().mean()
        return metrics

    def apply_heads(self, features: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Logits of each head on mask-pooled features, in float32, because small masks need precise areas.

        Args:
            features: (B, C, h, w).
            masks: (B, M, R, R) bool.

        Returns:
            (B, M, classes) by name of the head.
        """
        with torch.autocast(features.device.type, enabled=False):
            grid = (int(features.shape[-2]), int(features.shape[-1]))
            weights = cell_weights(masks.flatten(0, 1), grid).view(*masks.shape[:2], -1)
            pooled = weights @ features.float().flatten(2).transpose(1, 2)
            pooled = pooled / weights.sum(-1, keepdim=True).clamp(min=1e-6)
            return {name: head(pooled) for name, head in self.heads.items()}

    def targets(self, masks: LabelledMasks, labels: Tensor, with_size: bool) -> dict[str, Tensor]:
        """Classes of each mask.

        Args:
            masks: M masks per image.
            labels: (B, K, 4), see `scene_labels`.
            with_size: False ignores the size.

        Returns:
            (B, M) int64 by attribute, IGNORE for masks that are ignored.
        """
        best = labels.gather(1, masks.best[..., None].expand(-1, -1, labels.shape[-1]))
        result = {}
        for i, (name, count) in enumerate(ATTRIBUTES.items()):
            target = best[..., i].masked_fill(masks.share < self.accept, IGNORE)
            if name != "size":
                target = target.masked_fill(masks.share < self.reject, count)
            elif with_size:
                target = target.masked_fill(masks.kind != CLEAN, IGNORE)
            else:
                target = torch.full_like(target, IGNORE)
            result[name] = target
        return result


def scene_labels(batch: MaskBatch) -> Tensor:
    """Attribute classes of the objects of a batch, padded with IGNORE: (B, K, 4) int64."""
    rows = [object_classes(scene_id) for scene_id in batch.image_ids]
    out = torch.full((len(rows), max(len(row) for row in rows), len(ATTRIBUTES)), IGNORE)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out


@lru_cache(maxsize=65536)
def object_classes(scene_id: str) -> tuple[tuple[int, int, int, int], ...]:
    """Classes (category, colour, texture, size) of each object of a scene, which is rebuilt from its id.

    Size is relative to the picture's shorter side, which padding hides, so it is IGNORE in pictures that are not
    square.
    """
    scene = scene_of(scene_id)
    square = scene.image_size[0] == scene.image_size[1]
    return tuple(
        (
            CATEGORIES.index(thing.category),
            COLOURS.index(thing.colour),
            TEXTURES.index(thing.texture),
            SIZES.index(thing.size) if square else IGNORE,
        )
        for thing in scene.objects
    )


def _subsample(index: Tensor, side: int) -> Tensor:
    """(B, S, S) index maps to (B, side, side), by nearest pixel."""
    if index.shape[-1] == side:
        return index
    return F.interpolate(index[:, None].float(), (side, side), mode="nearest-exact")[:, 0].to(torch.uint8)
