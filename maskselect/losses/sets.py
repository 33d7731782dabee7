"""The set loss of Mask2Former (Cheng et al. 2022, arXiv 2112.01527, section 3.2) with InstructSeg's class loss.

Each prediction of the decoder is matched with the targets of its row, one query to one target (Hungarian matching).
Matched queries learn the mask of their target and a high score, all other queries a low score. A row without targets
makes all of its queries negative. InstructSeg (2412.14006) trains one target in each row; ours has any number.

Where code and paper of InstructSeg differ, the defaults are those of the code: weights 2, 5, 5 for class, mask and dice
(paper: 1, 1, 1), and a class cost of 0 in the matching (Mask2Former: 2).

Shape letters: R rows, Q queries, N targets of a row, T most targets of a row, P points, M matched pairs, h w the grid
of the mask logits, H W that of the targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from maskselect.losses.mask import dice_loss
from maskselect.ops.sampling import sample_places


@dataclass(frozen=True)
class Matches:
    """Matched pairs of a batch, in the order of rows and, within a row, of queries.

    Attributes:
        rows, queries, targets: (M,) int64 each; `targets` counts within a row.
    """

    rows: Tensor
    queries: Tensor
    targets: Tensor


@dataclass(frozen=True)
class SetLoss:
    """Loss of all predictions of a mask decoder against the targets of each row.

    Attributes:
        class_weight, mask_weight, dice_weight: weights of the losses.
        class_cost, mask_cost, dice_cost: weights of the costs in the matching.
        points: P, random places at which masks are compared; None compares all cells of the grid of the logits, with
            targets averaged over each cell, which is cheaper for small grids.
        oversample: the losses draw this times P places, and
        importance: this share of P are those of them where the logit is nearest to 0; the rest are random.

    Raises:
        ValueError: a setting is out of range.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    class_cost: float = 0.0
    mask_cost: float = 5.0
    dice_cost: float = 5.0
    points: int | None = 12544
    oversample: float = 3.0
    importance: float = 0.75

    def __post_init__(self) -> None:
        if self.points is not None and self.points < 1:
            raise ValueError(f"points must be at least 1 or None, got {self.points}")
        if self.oversample < 1 or not 0 <= self.importance <= 1:
            raise ValueError(
                f"oversample {self.oversample} and importance {self.importance}: expected oversample >= 1 and "
                "0 <= importance <= 1"
            )

    def __call__(
        self, scores: Sequence[Tensor], masks: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Weighted losses, summed over the predictions, each of which is matched anew.

        Args:
            scores: (R, Q) logits for each prediction.
            masks: (R, Q, h, w) logits for each prediction.
            targets: for each row (N, H, W) bool; H and W are the same for all rows.

        Returns:
            Scalars "loss", "class", "mask" and "dice"; the first is the sum of the others.

        Raises:
            ValueError: for another number of rows in `targets`.
        """
        if len(targets) != len(scores[0]):
            raise ValueError(f"got targets of {len(targets)} rows for {len(scores[0])} rows of scores")
        counts = [len(t) for t in targets]
        padded = _padded(targets, masks[0])
        normaliser = _mean_of_processes(sum(counts), scores[0].device)
        if self.points is None:
            padded = F.adaptive_avg_pool2d(padded, (masks[0].shape[-2], masks[0].shape[-1]))
        total: dict[str, Tensor] = {}
        for score, mask in zip(scores, masks, strict=True):
            for name, loss in self._prediction_losses(score.float(), mask.float(), padded, counts, normaliser).items():
                total[name] = total[name] + loss if name in total else loss
        return {"loss": total["class"] + total["mask"] + total["dice"], **total}

    def _prediction_losses(
        self, scores: Tensor, masks: Tensor, targets: Tensor, counts: Sequence[int], normaliser: Tensor
    ) -> dict[str, Tensor]:
        """Weighted losses of one prediction; see `__call__`. Targets: (R, T, H, W) float32."""
        pairs = self.match(scores, masks, targets, counts)
        logits, truth = self._compared(masks[pairs.rows, pairs.queries], targets[pairs.rows, pairs.targets])
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1).sum()
        dice = dice_loss(logits[:, None], truth[:, None]).sum()
        positive = torch.zeros_like(scores)
        positive[pairs.rows, pairs.queries] = 1.0
        weight = ((scores.numel() - normaliser) / normaliser).clamp(min=0)
        return {
            "class": self.class_weight * F.binary_cross_entropy_with_logits(scores, positive, pos_weight=weight),
            "mask": self.mask_weight * entropy / normaliser,
            "dice": self.dice_weight * dice / normaliser,
        }

    @torch.no_grad()
    def match(self, scores: Tensor, masks: Tensor, targets: Tensor, counts: Sequence[int]) -> Matches:
        """Match the queries of each row with its targets, at the least total cost.

        Args:
            scores: (R, Q) logits.
            masks: (R, Q, h, w) logits.
            targets: (R, T, H, W) float32 in [0, 1]; row r has `counts[r]` targets, which come first. Without `points`
                H and W are h and w.
            counts: N of each row.

        Returns:
            min(Q, N) pairs for each row.
        """
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  slow; only training needs it

        costs = self.costs(scores, masks, targets).cpu().numpy()
        found = [linear_sum_assignment(cost[:, :count]) for cost, count in zip(costs, counts, strict=True)]
        rows = np.repeat(np.arange(len(found)), [len(queries) for queries, _ in found])
        columns = [rows, *(np.concatenate(side) for side in zip(*found, strict=True))]
        return Matches(*(torch.from_numpy(c).to(masks.device, torch.int64) for c in columns))

    def costs(self, scores: Tensor, masks: Tensor, targets: Tensor) -> Tensor:
        """Costs of all pairs, (R, Q, T) float32; infinite and undefined ones become very large. See `match`.

        The points are the same for all masks of a row.
        """
        if self.points is None:
            logits, truth = masks.flatten(2).float(), targets.flatten(2)
        else:
            places = torch.rand(len(masks), 1, self.points, 2, device=masks.device)
            logits, truth = (sample_places(m.float(), places)[:, :, 0] for m in (masks, targets))
        swapped, number = truth.transpose(1, 2), logits.shape[-1]
        # BCE(x, t) = softplus(x) - t x
        entropy = (F.softplus(logits).sum(-1, keepdim=True) - logits @ swapped) / number
        inside = logits.sigmoid()
        dice = 1 - (2 * inside @ swapped + 1) / (inside.sum(-1)[:, :, None] + truth.sum(-1)[:, None] + 1)
        score = -scores.float().sigmoid()[:, :, None]
        cost = self.class_cost * score + self.mask_cost * entropy + self.dice_cost * dice
        large = torch.finfo(cost.dtype).max
        return cost.nan_to_num(nan=large, posinf=large, neginf=large)

    def _compared(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (M, h, w) and targets (M, H, W) at the places of the losses: (M, P) twice."""
        if self.points is None:
            return logits.flatten(1), targets.flatten(1)
        places = self._uncertain_places(logits.detach())
        return _samples(logits, places), _samples(targets, places)

    def _uncertain_places(self, logits: Tensor) -> Tensor:
        """Places (M, P, 2) for logits (M, h, w), mostly where these are near 0 (PointRend, 1912.08193)."""
        assert self.points is not None
        uncertain = int(self.points * self.importance)
        drawn = torch.rand(len(logits), int(self.points * self.oversample), 2, device=logits.device)
        order = _samples(logits, drawn).abs().topk(uncertain, 1, largest=False).indices
        chosen = drawn.gather(1, order[..., None].expand(-1, -1, 2))
        return torch.cat([chosen, torch.rand(len(logits), self.points - uncertain, 2, device=logits.device)], 1)


def _samples(maps: Tensor, places: Tensor) -> Tensor:
    """Samples (M, P) of maps (M, h, w) at places (M, P, 2)."""
    return sample_places(maps[:, None], places[:, None])[:, 0, 0]


def _padded(targets: Sequence[Tensor], like: Tensor) -> Tensor:
    """Targets of all rows, (R, T, H, W) float32 on the device of `like`, filled up with empty masks."""
    most = max(1, *(len(t) for t in targets))
    out = torch.zeros(len(targets), most, *targets[0].shape[-2:], dtype=torch.float32, device=like.device)
    for row, masks in zip(out, targets, strict=True):
        row[: len(masks)] = masks
    return out


def _mean_of_processes(count: int, device: torch.device) -> Tensor:
    """The number of targets, at least 1, as the mean over the processes of a distributed run."""
    total = torch.tensor(float(count), dtype=torch.float32, device=device)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        total = total / distributed.get_world_size()
    return total.clamp(min=1)
