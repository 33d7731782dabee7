"""Pretraining of a compact encoder on scenes: what each mask holds must be linearly readable from its mean feature.

Features are pooled under masks exactly as RAS pools them later, and the heads are linear, so that a frozen encoder
hands the mask projector category, colour, texture, size and "how well does this mask fit one object" ready to read.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.encoders.frozen import FrozenEncoder
from maskselect.ops.pooling import cell_weights
from maskselect.recipes.compact.augment import flip, photometric, rescale, swap_background
from maskselect.recipes.compact.encoder_masks import CLEAN, NOISY, LabelledMasks, clean_masks, mixed_masks
from maskselect.recipes.compact.learner import CompactLearner
from maskselect.scenes.spec import CATEGORIES, COLOURS, SIZES, TEXTURES
from maskselect.scenes.stream import scene_of
from maskselect.structures.batches import MaskBatch
from maskselect.structures.groups import PrepareSettings
from maskselect.systems.picture_batches import MaskPreparer

ATTRIBUTES = {"category": len(CATEGORIES), "colour": len(COLOURS), "texture": len(TEXTURES), "size": len(SIZES)}
"""Classes of each attribute; category, colour and texture have one more, "not one object"."""

IGNORE = -100


class EncoderTask(CompactLearner):
    """A learner that pretrains one encoder with linear heads on mask-pooled features.

    encoder: constructed with random weights; it is thawed here. What is saved afterwards is `encoder.state_dict()`.
    mask_side: masks are made and spoilt at this side in pixels, whatever the image's.
    junk: masks of no object an image.
    rescale_share: share of batches whose images are scaled and moved; "size" is not asked of those.
    accept, reject: a mask of which one object fills at least the share `accept` is of its classes, one in which none
        fills `reject` is "not one object", and between them the classes are not asked. The share counts and not the
        IoU, because the mean under a part of an object can hardly differ from that under the whole: asking it to
        say "none" only blurs the classes. Completeness is what the quality head is asked.
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
        """Pictures with all their masks; `loss` changes light and place itself."""
        return MaskPreparer(self.encoder.info.input_size)

    def learned_state(self) -> dict[str, Tensor]:
        """The encoder alone; the heads have done their work."""
        return dict(self.encoder.state_dict())

    def loss(self, batch: MaskBatch) -> dict[str, Tensor]:
        """Sum of the cross entropies and of the IoU's binary cross entropy.

        Args:
            batch: scenes; their ids tell the classes of each object.

        Returns:
            "loss" and each part, scalars.
        """
        images, index = batch.images.float() / 255, batch.index()
        labels = scene_labels(batch).to(index.device)
        images, index = flip(images, index)
        rescaled = bool(torch.rand(()) < self.rescale_share)
        if rescaled:
            images, index = rescale(images, index)
        images = swap_background(images, index)
        small = _subsample(index, self.mask_side)
        masks = mixed_masks(small, labels.shape[1], self.junk)
        outputs = self.predict(photometric(images), masks.masks)
        targets = self.targets(masks, labels, with_size=not rescaled)
        parts = {}
        for name in ATTRIBUTES:
            asked = masks.valid & (targets[name] != IGNORE)
            if asked.any():
                logits = outputs[name][asked]
                parts[name] = F.cross_entropy(logits, targets[name][asked], label_smoothing=self.smoothing)
        quality = outputs["quality"][..., 0][masks.valid]
        parts["quality"] = F.binary_cross_entropy_with_logits(quality, masks.iou[masks.valid])
        return {"loss": torch.stack(list(parts.values())).sum(), **{k: v.detach() for k, v in parts.items()}}

    @torch.no_grad()
    def validate(self, batch: MaskBatch) -> dict[str, Tensor]:
        """Accuracies in [0, 1] on true masks: each attribute, "joint" (category, colour and texture), and the same of
        small objects; "quality_error" is the mean absolute error of the IoU on spoilt masks. Batch as in `loss`."""
        images, index = batch.images.float() / 255, batch.index()
        labels = scene_labels(batch).to(index.device)
        masks = clean_masks(index, labels.shape[1])
        valid = masks.valid & (labels[..., 0] != IGNORE)
        sized = valid & (labels[..., 3] != IGNORE)
        features = self.features(images)
        outputs = self.read(features, masks.masks)
        right = {
            name: outputs[name][..., :count].argmax(-1) == labels[..., i]
            for i, (name, count) in enumerate(ATTRIBUTES.items())
        }
        right["joint"] = right["category"] & right["colour"] & right["texture"]
        little = valid & (labels[..., 3] == 0)
        asked = {name: sized if name == "size" else valid for name in right}
        result = {name: hits[asked[name]].float().mean() for name, hits in right.items() if asked[name].any()}
        if little.any():
            result |= {f"{n}_small": right[n][little].float().mean() for n in ("category", "colour", "texture")}
        spoilt = mixed_masks(_subsample(index, self.mask_side), labels.shape[1], self.junk)
        guess = self.read(features, spoilt.masks)["quality"][..., 0].sigmoid()
        chosen = spoilt.valid & (spoilt.kind == NOISY)
        result["quality_error"] = (guess - spoilt.iou)[chosen].abs().mean()
        return result

    def predict(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Logits of each head: (B, 3, S, S) in [0, 1] and (B, M, R, R) bool to (B, M, classes) by name."""
        return self.read(self.features(images), masks)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] to (B, C, h, w) float32."""
        result: Tensor = self.encoder(images)
        return result

    def read(self, features: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Pool under masks and apply the heads; in float32, because areas of small masks matter."""
        with torch.autocast(features.device.type, enabled=False):
            grid = (int(features.shape[-2]), int(features.shape[-1]))
            weights = cell_weights(masks.flatten(0, 1), grid).view(*masks.shape[:2], -1)
            pooled = weights @ features.float().flatten(2).transpose(1, 2)
            pooled = pooled / weights.sum(-1, keepdim=True).clamp(min=1e-6)
            return {name: head(pooled) for name, head in self.heads.items()}

    def targets(self, masks: LabelledMasks, labels: Tensor, with_size: bool) -> dict[str, Tensor]:
        """Class of each mask by attribute, (B, M) int64 with IGNORE where it is not asked. labels: (B, K, 4)."""
        own = labels.gather(1, masks.best[..., None].expand(-1, -1, labels.shape[-1]))
        result = {}
        for i, (name, count) in enumerate(ATTRIBUTES.items()):
            target = own[..., i].masked_fill(masks.share < self.accept, IGNORE)
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
    """Classes of (category, colour, texture, size) of each object of a scene, rebuilt from its id.

    Size is a share of the picture's shorter side, which padding hides: in a picture that is not square it is IGNORE.
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
    """Index maps (B, S, S) at another side, by nearest pixel."""
    if index.shape[-1] == side:
        return index
    return F.interpolate(index[:, None].float(), (side, side), mode="nearest-exact")[:, 0].to(torch.uint8)
