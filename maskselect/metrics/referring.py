"""`ReferringMetrics`: every measure of referring segmentation over a set of samples, in one pass.

Definitions: gIoU, cIoU, N-acc, T-acc and Pr@X as in gRefCOCO's evaluator (ReLA, arXiv 2306.00968); ncIoU as in LLM-Seg;
F1 as VGent reports it (arXiv 2512.11099), whose matching rule is not published; ours: `functional.matched_overlaps`.
"""

import math
import warnings

import torch
from torch import Tensor
from torchmetrics import Metric

from maskselect.metrics import functional
from maskselect.metrics.functional import EmptyRule, F1Overlap

PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)
F1_AT = tuple(0.5 + 0.05 * step for step in range(10))
_SCALARS = (
    "samples", "iou", "intersection", "union", "canvas_intersection", "canvas_union",
    "target_samples", "target_found", "none_samples", "none_found", "predicted", "targets",
    "oracle_samples", "oracle_iou", "oracle_intersection", "oracle_union",
)  # fmt: skip


class ReferringMetrics(Metric):
    """State is sums only, so batches, processes and subsets add up exactly.

    f1_overlap: match predicted and true masks by the IoU of their boxes, or of the masks.
    empty_rule: see `functional.overlap`.

    `compute` gives fractions in [0, 1], NaN where nothing was there to measure:
    gIoU: mean IoU of the united answer.  cIoU: summed intersection over summed union.  ncIoU: the same on one canvas.
    N-acc: share of no-target samples answered with nothing.  T-acc: share of the others answered with something.
    F1: per-sample F1 at IoU 0.5, then the mean.  F1@.5:.95: mean over ten thresholds.  F1 micro: counts summed first.
    Pr@X: share of samples with a target whose IoU is at least X.
    oracle_gIoU, oracle_cIoU: the same for the best choice from the candidates; of samples that came with candidates.
    """

    full_state_update = False
    higher_is_better = True

    samples: Tensor
    target_samples: Tensor
    at_least: Tensor
    f1_sums: Tensor
    true_positives: Tensor

    def __init__(self, f1_overlap: F1Overlap = "box", empty_rule: EmptyRule = "gres") -> None:
        super().__init__(compute_with_cache=False)  # merge_state would not clear the cache
        self.f1_overlap, self.empty_rule = f1_overlap, empty_rule
        shapes = {name: () for name in _SCALARS} | {"at_least": (len(PRECISION_AT),)}
        shapes |= {"f1_sums": (len(F1_AT),), "true_positives": (len(F1_AT),)}
        for name, shape in shapes.items():  # float64 counts pixels exactly up to 2^53
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, prediction: Tensor, targets: Tensor, candidates: Tensor | None = None, predicted_none: bool | None = None
    ) -> None:
        """One sample.

        prediction: (M, H, W) bool, the masks answered; none of them for "nothing".
        targets: (G, H, W) bool, the true ones.
        candidates: (N, H, W) bool, the pool that was chosen from, for the oracle.
        predicted_none: the model's own decision where it is more than M = 0.

        Raises ValueError when sizes or types differ.
        """
        _check(prediction, targets, candidates)
        none = len(prediction) == 0 if predicted_none is None else predicted_none
        self._add_overlap(prediction.any(dim=0), targets.any(dim=0), none, len(targets) == 0)
        self._add_f1(prediction, targets)
        if candidates is not None:
            self._add_oracle(candidates, targets)

    def compute(self) -> dict[str, Tensor]:
        """Fractions by name, see the class."""
        per_sample = self.f1_sums / self.samples
        result = {
            "gIoU": self._ratio("iou", "samples"),
            "cIoU": self._ratio("intersection", "union"),
            "ncIoU": self._ratio("canvas_intersection", "canvas_union"),
            "N-acc": self._ratio("none_found", "none_samples"),
            "T-acc": self._ratio("target_found", "target_samples"),
            "F1": per_sample[0],
            "F1@.5:.95": per_sample.mean(),
            "F1 micro": 2 * self.true_positives[0] / (self._sum("predicted") + self._sum("targets")),
        }
        for limit, count in zip(PRECISION_AT, self.at_least, strict=True):
            result[f"Pr@{limit}"] = count / self.target_samples
        result["oracle_gIoU"] = self._ratio("oracle_iou", "oracle_samples")
        result["oracle_cIoU"] = self._ratio("oracle_intersection", "oracle_union")
        return result

    def report(self) -> dict[str, float | None]:
        """`compute` in percent, two decimals, with None where nothing was there to measure, and the sample count."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of no update before compute: None says so, and merging is none
            percent = {name: 100 * float(value) for name, value in self.compute().items()}
        rounded = {name: None if math.isnan(value) else round(value, 2) for name, value in percent.items()}
        return {"samples": int(self.samples), **rounded}

    def _add_overlap(self, prediction: Tensor, target: Tensor, none: bool, target_none: bool) -> None:
        inter, union, iou = self._overlap(prediction, target, none, target_none)
        self._increase(samples=1, iou=iou, intersection=inter, union=union)
        canvas = functional.canvas_intersection_union(prediction, target)
        inter, union, _ = functional.overlap(*canvas, none, target_none, self.empty_rule)
        self._increase(canvas_intersection=inter, canvas_union=union)
        if target_none:
            self._increase(none_samples=1, none_found=none)
        else:
            self._increase(target_samples=1, target_found=not none)
            self.at_least += torch.tensor([iou >= limit for limit in PRECISION_AT], device=self.device)

    def _add_f1(self, prediction: Tensor, targets: Tensor) -> None:
        matched = functional.matched_overlaps(prediction, targets, self.f1_overlap).to(self.device, torch.float64)
        # A hair of tolerance: a box of exactly half another's area is at the limit, whatever float32 makes of it.
        right = (matched[:, None] >= torch.tensor(F1_AT, device=self.device).double() - 1e-6).sum(0).double()
        self.f1_sums += functional.f1(right, len(prediction), len(targets))
        self.true_positives += right
        self._increase(predicted=len(prediction), targets=len(targets))

    def _add_oracle(self, candidates: Tensor, targets: Tensor) -> None:
        target_none = len(targets) == 0  # the best choice from any pool is then to choose nothing: perfect
        best = functional.best_candidates(candidates, targets)
        inter, union, iou = self._overlap(best, targets.any(dim=0), target_none, target_none)
        self._increase(oracle_samples=1, oracle_iou=iou, oracle_intersection=inter, oracle_union=union)

    def _overlap(self, prediction: Tensor, target: Tensor, none: bool, target_none: bool) -> functional.Overlap:
        counts = functional.intersection_union(prediction, target)
        return functional.overlap(*counts, none, target_none, self.empty_rule)

    def _increase(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            setattr(self, name, self._sum(name) + amount)

    def _sum(self, name: str) -> Tensor:
        value: Tensor = getattr(self, name)
        return value

    def _ratio(self, above: str, below: str) -> Tensor:
        return self._sum(above) / self._sum(below)


def _check(prediction: Tensor, targets: Tensor, candidates: Tensor | None) -> None:
    for name, masks in {"prediction": prediction, "targets": targets, "candidates": candidates}.items():
        if masks is None:
            continue
        if masks.ndim != 3 or masks.dtype != torch.bool:
            raise ValueError(f"{name} must be (K, H, W) bool, got {tuple(masks.shape)} {masks.dtype}")
        if masks.shape[1:] != targets.shape[1:]:
            raise ValueError(f"{name} must be of the targets' size {tuple(targets.shape[1:])}, got {masks.shape[1:]}")
