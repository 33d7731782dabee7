"""`ObjectMasksTask`: trains the segmentation decoder alone, to find all objects of an image, whatever they are.

InstructSeg's decoder starts from a Mask2Former (arXiv 2112.01527) that was trained on COCO. This is the compact
counterpart. There are no classes: the score says whether a mask shows an object.

Shape letters: B images, S side of the square that the encoder reads, Q queries, N objects of an image.
"""

import torch
from torch import Tensor

from maskselect.decoders.mask2former import MaskPredictions, ObjectDecoder
from maskselect.encoders.frozen import FrozenEncoder
from maskselect.losses.sets import SetLoss
from maskselect.ops.masks import upsample_logits
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.mask2former import SYSTEM
from maskselect.recipes.compact.corner import cornered
from maskselect.recipes.compact.learner import CompactLearner
from maskselect.structures.batches import MaskBatch
from maskselect.structures.features import finest_first
from maskselect.structures.groups import PrepareSettings
from maskselect.systems.picture_batches import MaskPreparer

_GOOD_IOU = 0.5


class ObjectMasksTask(CompactLearner):
    """A learner that trains an `ObjectDecoder` on the maps of a frozen encoder.

    Every annotated mask of a picture is a target. As in InstructSeg, pictures are in the top left corner of a square of
    grey.

    Args:
        encoder: frozen; its maps are those that the decoder is configured for.
        decoder: pixel decoder, mask decoder and learned queries.
        set_loss: by default that of InstructSeg's code, on all cells of the grid of the mask logits instead of on
            random points.
        flips: flip pictures from left to right at random.

    Raises:
        ValueError: the channels of the encoder are not those of the decoder.
    """

    name = SYSTEM

    def __init__(
        self,
        encoder: FrozenEncoder,
        decoder: ObjectDecoder,
        set_loss: SetLoss | None = None,
        flips: bool = True,
    ) -> None:
        super().__init__()
        channels = [level.channels for level in sorted(encoder.info.levels, key=lambda level: level.stride)]
        if channels != decoder.pixel_decoder.channels:
            expected = decoder.pixel_decoder.channels
            raise ValueError(f"the decoder reads maps of channels {expected}, but encoder gives {channels}")
        self.encoder, self.decoder = encoder, decoder
        self.set_loss, self.flips = set_loss or SetLoss(points=None), flips

    def preparer(self, settings: PrepareSettings, training: bool) -> MaskPreparer:
        """Prepares pictures with all their masks, at the side of the encoder's input."""
        return MaskPreparer(self.encoder.info.input_size, training)

    def learned_state(self) -> dict[str, Tensor]:
        """The decoder's tensors; the encoder has a checkpoint of its own."""
        return dict(self.decoder.state_dict())

    def loss(self, batch: MaskBatch) -> dict[str, Tensor]:
        """Losses of a batch, see `SetLoss`."""
        images, targets = self.prepare(batch, self.flips and self.training)
        predictions = self._predict(images)
        return self.set_loss(predictions.scores, predictions.masks, targets)

    @torch.no_grad()
    def validate(self, batch: MaskBatch) -> dict[str, Tensor]:
        """The losses without flips, and how well the last prediction finds the objects.

        Returns:
            The losses; "best_iou", the mean over objects of the highest IoU with any mask; "recall", the share of
            objects with an IoU of at least 0.5; and "precision", the share of the masks with a score above 0 that
            have this IoU with an object.
        """
        images, targets = self.prepare(batch, flips=False)
        predictions = self._predict(images)
        losses = self.set_loss(predictions.scores, predictions.masks, targets)
        best, right = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
        for logits, scores, truth in zip(predictions.masks[-1], predictions.scores[-1], targets, strict=True):
            if len(truth) == 0:
                continue
            iou = pairwise_iou(upsample_logits(logits, (truth.shape[1], truth.shape[2])) > 0, truth).cpu()
            best.append(iou.amax(0))
            right.append(iou.amax(1)[scores.cpu() > 0] >= _GOOD_IOU)
        best_iou, found = torch.cat(best), torch.cat(right).float()
        measures = {"best_iou": best_iou, "recall": (best_iou >= _GOOD_IOU).float(), "precision": found}
        return losses | {name: values.mean() if len(values) else values.sum() for name, values in measures.items()}

    def prepare(self, batch: MaskBatch, flips: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 3, S, S) float32 in [0, 1], and for each image masks (N, S, S) bool, without empty ones."""
        images, targets = cornered(batch, flips)
        return images.float() / 255, targets

    def _predict(self, images: Tensor) -> MaskPredictions:
        predictions: MaskPredictions = self.decoder(finest_first(self.encoder.encode(images)))
        return predictions
