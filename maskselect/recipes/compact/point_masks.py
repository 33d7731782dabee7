"""`PointMasksTask`: trains a `PointMaskDecoder` to draw the object under a point, on the maps of a frozen encoder.

Points are drawn inside of annotated objects. What nobody annotated is no target and gets no loss, so that photographs
with incomplete annotations can be used.

Shape letters: B images, S side of the square that the encoder reads, M annotated masks, N points, K masks of a point,
h w the grid of the mask logits.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.decoders.points import PointMaskDecoder
from maskselect.encoders.frozen import FrozenEncoder
from maskselect.losses.mask import iou_prediction_loss, mask_iou, mask_loss
from maskselect.proposers.points import SYSTEM
from maskselect.recipes.compact.corner import cornered
from maskselect.recipes.compact.kept_maps import KeptMaps
from maskselect.recipes.compact.learner import CompactLearner
from maskselect.structures.batches import MaskBatch
from maskselect.structures.groups import PrepareSettings
from maskselect.systems.picture_batches import MaskPreparer

_OTHERS = 0.1  # weight of the mean of all masks of a point; masks that are never the best would otherwise stay noise


class PointMasksTask(CompactLearner):
    """A learner that trains the decoder. The maps of the encoder are cached in the `cache_dir` of the data.

    Args:
        encoder: frozen; its maps are those that the decoder is configured for.
        decoder: the decoder.
        points: points of an object.
        most_points: greatest number of points of an image; of more, some are chosen at random.
        ranges: for each level of the decoder the least and greatest size of its objects, the square root of the area
            in pixels of the encoder's input. A point that no object in the range of a level covers is taught to that
            level as one without a mask: its predicted IoU is 0.
        iou_weight: weight of the loss of the predicted IoU; the mask losses have weight 1.
        flips: flip pictures from left to right at random.

    Raises:
        ValueError: the channels of the encoder, or the number of ranges, are not those of the decoder.
    """

    name = SYSTEM

    def __init__(
        self,
        encoder: FrozenEncoder,
        decoder: PointMaskDecoder,
        points: int = 4,
        most_points: int = 24,
        ranges: Sequence[tuple[float, float]] = ((0, 80), (48, 192), (112, 100000)),
        iou_weight: float = 1.0,
        flips: bool = True,
    ) -> None:
        super().__init__()
        channels = [level.channels for level in sorted(encoder.info.levels, key=lambda level: level.stride)]
        if channels != decoder.channels:
            raise ValueError(f"the decoder reads maps of channels {decoder.channels}, but encoder gives {channels}")
        if len(ranges) != decoder.levels:
            raise ValueError(f"the decoder has {decoder.levels} levels; expected as many ranges, got {len(ranges)}")
        self.encoder, self.decoder = encoder, decoder
        self.points, self.most_points, self.ranges = points, most_points, [tuple(one) for one in ranges]
        self.iou_weight, self.flips = iou_weight, flips
        self._maps = KeptMaps(encoder, None)

    def preparer(self, settings: PrepareSettings, training: bool) -> MaskPreparer:
        """Prepares pictures with all their masks, at the side of the encoder's input."""
        self._maps = KeptMaps(self.encoder, settings.cache_dir)
        return MaskPreparer(self.encoder.info.input_size)

    def learned_state(self) -> dict[str, Tensor]:
        """The decoder's tensors; the encoder has a checkpoint of its own."""
        return dict(self.decoder.state_dict())

    def loss(self, batch: MaskBatch) -> dict[str, Tensor]:
        """Losses of a batch.

        Returns:
            Scalars: "loss", "mask", "iou", and without gradient "best_iou", the mean IoU of the best mask of a point,
            and "chosen_iou", that of the mask with the highest predicted IoU.
        """
        images, masks = cornered(batch, self.flips and self.training)
        features = self.decoder(self._maps(images))
        size = features.mask_features.shape[-2:]
        objects, owners = self._draw(masks)
        fits = [self._fits(one) for one in masks]
        within = torch.cat(fits, 1)[:, objects]  # (levels, N)
        beside = [(fits[image] & masks[image][:, y, x]).any(1) for image, x, y in owners.tolist()]
        outside = ~torch.stack(beside, 1) if beside else ~within  # no object of this size covers the point
        level, place = within.nonzero().unbind(1)
        points = torch.stack(
            [points_of(owners, n, images.shape[-1], one.shape[-2:]) for n, one in enumerate(features.levels)]
        )  # (levels, N, 4)
        logits, iou = self.decoder.decode(features, points[level, place])
        small = torch.cat([F.adaptive_avg_pool2d(one[:, None].float(), (size[0], size[1]))[:, 0] for one in masks])
        targets = small[objects[place]][:, None].expand_as(logits)
        losses = mask_loss(logits, targets)
        best, chosen = losses.min(1)
        true = mask_iou(logits, targets)
        unmasked = self.decoder.iou_head(self.decoder.vectors(features, points[outside])).sigmoid()
        mask = (best + _OTHERS * losses.mean(1)).sum() / max(1, len(best))
        predicted, expected = torch.cat([iou, unmasked]), torch.cat([true, torch.zeros_like(unmasked)])
        regressed = iou_prediction_loss(predicted, expected) if len(predicted) else predicted.sum()
        rows = torch.arange(len(best), device=best.device)
        scalars = {"loss": mask + self.iou_weight * regressed, "mask": mask, "iou": regressed}
        measured = {"best_iou": true[rows, chosen], "chosen_iou": true[rows, iou.argmax(1)]}
        return scalars | {name: one.sum() / max(1, len(one)) for name, one in measured.items()}

    @torch.no_grad()
    def validate(self, batch: MaskBatch) -> dict[str, Tensor]:
        """The scalars of `loss`, without flips."""
        return self.loss(batch)

    def _fits(self, masks: Tensor) -> Tensor:
        """Which masks (M, S, S) are in the range of each level: (levels, M) bool."""
        sizes = masks.flatten(1).sum(1).float().sqrt()
        return torch.stack([(sizes >= low) & (sizes <= high) for low, high in self.ranges])

    def _draw(self, masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Points in objects: their number among all objects of the batch (N,), and image, x and y (N, 3)."""
        objects, owners, first = [], [], 0
        for image, one in enumerate(masks):
            drawn = torch.arange(len(one), device=one.device).repeat_interleave(self.points)
            drawn = drawn[torch.randperm(len(drawn), device=one.device)[: self.most_points]]
            objects.append(drawn + first)
            owners.append(torch.cat([torch.full_like(drawn[:, None], image), random_pixels(one, drawn)], 1))
            first += len(one)
        return torch.cat(objects), torch.cat(owners)


def random_pixels(masks: Tensor, rows: Tensor) -> Tensor:
    """A random pixel (x, y) of some of the masks (M, H, W) bool, none of them empty: rows (N,) to (N, 2) int64."""
    out = rows.new_zeros(len(rows), 2)
    for row in rows.unique().tolist():
        inside = masks[row].flatten().nonzero()[:, 0]
        own = (rows == row).nonzero()[:, 0]
        flat = inside[torch.randint(len(inside), (len(own),), device=masks.device)]
        out[own] = torch.stack([flat % masks.shape[2], flat // masks.shape[2]], 1)
    return out


def points_of(owners: Tensor, level: int, side: int, grid: Sequence[int]) -> Tensor:
    """Image, level, row and column (N, 4) of the cells of a level with given pixels, (N, 3): image, x and y."""
    image, x, y = owners.unbind(1)
    return torch.stack([image, torch.full_like(image, level), y * grid[0] // side, x * grid[1] // side], 1)
