"""`ReferringMetrics`: every measure of referring segmentation over a set of samples, in one pass.

gIoU, cIoU, N-acc, T-acc and Pr@X are those of gRefCOCO's evaluator (ReLA, arXiv 2306.00968), ncIoU is LLM-Seg's. VGent
(arXiv 2512.11099) reports F1 without its matching rule; ours is `functional.matched_overlaps`. The differences between
evaluators are in `maskselect.metrics.protocols`; docs/guide/metrics.md lists them.
"""

import math
import warnings

import torch
from torch import Tensor
from torchmetrics import Metric

from maskselect.metrics import functional
from maskselect.metrics.functional import F1Overlap, Overlap
from maskselect.metrics.mask_box import is_hit
from maskselect.metrics.protocols import MATCHED_RECALL, RECALL, RECALL_AT, Protocol, protocol_named
from maskselect.ops.packed import pairwise_counts

PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)
F1_AT = tuple(0.5 + 0.05 * step for step in range(10))
RULES_VERSION = 3
"""Increases when what is measured changes, so that samples scored by older rules are not added to newer ones."""
NEED_TARGETS = ("cIoU", "ncIoU", "oracle_cIoU")
"""Shares of true pixels: None in a report if no sample has a target."""
_SCALARS = (
    "samples", "iou", "weight", "intersection", "union", "canvas_intersection", "canvas_union",
    "target_samples", "target_found", "none_samples", "none_found", "predicted", "targets",
    "oracle_samples", "oracle_iou", "oracle_intersection", "oracle_union",
    "plain_iou", "box_hits", "pool_targets",
)  # fmt: skip


class ReferringMetrics(Metric):
    """Measures over samples. The state is sums only, so batches, processes and subsets add up exactly.

    `compute` returns the measures of the protocol as fractions in [0, 1], NaN if there was nothing to measure:

    - gIoU: mean IoU of the united masks. cIoU: summed intersection over summed union. ncIoU: cIoU on a canvas.
    - N-acc: share of no-target samples with an empty answer. T-acc: share of the others with an answer.
    - F1: mean of the per-sample F1 at IoU 0.5. F1@.5:.95: mean over ten limits. F1 micro: of the summed counts.
    - Pr@X: share of samples with a target whose IoU is at least X.
    - oracle_gIoU, oracle_cIoU: of the best choice from the candidates, over samples with candidates.
    - mIoU: mean IoU by pixels alone, 0 for an empty union, under every protocol.
    - Acc@0.5: share of samples with a target whose box matches, see `mask_box`.
    - recall@X: share of targets with a candidate of IoU at least X, over samples with candidates. A candidate may serve
      several targets, so the mean is not COCO's average recall.
    - matched_recall@X: the same, with each candidate for one target, matched by COCO's rule. The mean over the limits
      is COCO's AR without a limit on the number of candidates.

    Args:
        f1_overlap: match predicted and true masks by the IoU of their boxes, or of the masks.
        protocol: a name of `maskselect.metrics.protocols.PROTOCOLS`, or a `Protocol`.

    Raises:
        ValueError: no protocol has this name.

    >>> metrics = ReferringMetrics(protocol="lisa")
    >>> target = torch.ones(1, 4, 4, dtype=torch.bool)
    >>> metrics.update(target, target)
    >>> metrics.update(torch.zeros_like(target), target)
    >>> metrics.report()["gIoU"]
    50.0
    """

    full_state_update = False
    higher_is_better = True

    samples: Tensor
    target_samples: Tensor
    at_least: Tensor
    weight: Tensor
    f1_sums: Tensor
    true_positives: Tensor
    recalled: Tensor
    matched: Tensor
    pool_targets: Tensor

    def __init__(self, f1_overlap: F1Overlap = "box", protocol: str | Protocol = "maskselect") -> None:
        super().__init__(compute_with_cache=False)  # merge_state would not clear the cache
        self.f1_overlap = f1_overlap
        self.protocol = protocol_named(protocol) if isinstance(protocol, str) else protocol
        shapes = {name: () for name in _SCALARS} | {"at_least": (len(PRECISION_AT),), "recalled": (len(RECALL_AT),)}
        shapes |= {"f1_sums": (len(F1_AT),), "true_positives": (len(F1_AT),), "matched": (len(RECALL_AT),)}
        for name, shape in shapes.items():  # float64 counts pixels exactly up to 2^53
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        prediction: Tensor,
        targets: Tensor,
        candidates: Tensor | None = None,
        predicted_none: bool | None = None,
        ignore: Tensor | None = None,
        candidate_scores: Tensor | None = None,
    ) -> None:
        """Add one sample.

        Args:
            prediction: (M, H, W) bool, the predicted masks; M = 0 for "nothing".
            targets: (G, H, W) bool, the true masks.
            candidates: (N, H, W) bool, the candidate pool, for the oracle and recall.
            predicted_none: the model's decision that nothing answers the prompt; None to derive it from the masks.
            ignore: (H, W) bool, pixels that are not counted, if the protocol supports them.
            candidate_scores: (N,) float, the order of candidates in matched recall; None if they are sorted best first.

        Raises:
            ValueError: sizes or types differ.
        """
        _check(prediction, targets, candidates, ignore, candidate_scores)
        own_size = self._kept(prediction, ignore).any(dim=0), self._kept(targets, ignore).any(dim=0)
        prediction, targets = self._scored(prediction, ignore), self._scored(targets, ignore)
        none = self.protocol.says_none(prediction) if predicted_none is None else predicted_none
        target_none = self.protocol.has_no_target(targets)
        self._add_overlap(prediction, targets, none, target_none)
        self._add_own_size(*own_size, none, target_none)
        self._add_f1(prediction, targets)
        if candidates is not None:
            order = None if candidate_scores is None else candidate_scores.argsort(descending=True, stable=True)
            self._add_oracle(self._scored(candidates, ignore), targets, target_none, order)

    def compute(self) -> dict[str, Tensor]:
        """Fractions by name, over all processes."""
        return self.fractions()

    def fractions(self) -> dict[str, Tensor]:
        """Fractions by name from the sums of this process."""
        per_sample, rule = self.f1_sums / self.samples, self.protocol
        counts, sums = rule.count_epsilon, rule.sum_epsilon
        result = {
            "gIoU": self._ratio("iou", "weight", counts, "weight"),
            "cIoU": self._ratio("intersection", "union", sums, "samples"),
            "ncIoU": self._ratio("canvas_intersection", "canvas_union", sums, "samples"),
            "N-acc": self._ratio("none_found", "none_samples"),
            "T-acc": self._ratio("target_found", "target_samples"),
            "F1": per_sample[0],
            "F1@.5:.95": per_sample.mean(),
            "F1 micro": 2 * self.true_positives[0] / (self._sum("predicted") + self._sum("targets")),
        }
        of = self.target_samples if rule.share == "targets" else self.samples
        result |= {f"Pr@{limit}": count / of for limit, count in zip(PRECISION_AT, self.at_least, strict=True)}
        result["oracle_gIoU"] = self._ratio("oracle_iou", "oracle_samples", counts, "oracle_samples")
        result["oracle_cIoU"] = self._ratio("oracle_intersection", "oracle_union", sums, "oracle_samples")
        result["mIoU"] = self._ratio("plain_iou", "samples")
        result["Acc@0.5"] = self._ratio("box_hits", "target_samples")
        for names, count in ((RECALL, self.recalled), (MATCHED_RECALL, self.matched)):
            recall = count / self.pool_targets
            result |= dict(zip(names, [*recall, recall.mean()], strict=True))
        return {name: result[name] for name in rule.measures}

    def report(self) -> dict[str, float | None]:
        """`compute` in percent, two decimals, None if there was nothing to measure; and the number of samples.

        Shares of true pixels (`NEED_TARGETS`) are None if no sample has a target, even if an epsilon or a false alarm
        makes `compute` return 0.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about compute before update: None reports it
            percent = {name: 100 * float(value) for name, value in self.compute().items()}
        absent = NEED_TARGETS if self.target_samples == 0 else ()
        return {
            "samples": int(self.samples),
            **{k: None if math.isnan(v) or k in absent else round(v, 2) for k, v in percent.items()},
        }

    def _scored(self, masks: Tensor, ignore: Tensor | None) -> Tensor:
        """The masks without ignored pixels, at the protocol's size."""
        return self.protocol.to_canvas(self._kept(masks, ignore))

    def _kept(self, masks: Tensor, ignore: Tensor | None) -> Tensor:
        return masks & ~ignore if ignore is not None and self.protocol.ignores else masks

    def _add_overlap(self, prediction: Tensor, targets: Tensor, none: bool, target_none: bool) -> None:
        answer, truth = prediction.any(dim=0), targets.any(dim=0)
        united = functional.intersection_union(answer, truth)
        counts = functional.one_to_one(prediction, targets) if self.protocol.paired else [united]
        inter, union, iou = self._overlaps(counts, none, target_none)
        weight = len(counts) if self.protocol.paired else 1
        self._increase(samples=1, iou=iou * weight, weight=weight, intersection=inter, union=union)
        self._increase(plain_iou=functional.overlap(*united, none, target_none, "zero").iou)
        right = [iou > limit if self.protocol.strict else iou >= limit for limit in PRECISION_AT]
        if target_none:
            self._increase(none_samples=1, none_found=none)
        else:
            self._increase(target_samples=1, target_found=not none)
        if not target_none or self.protocol.share == "all":
            self.at_least += torch.tensor(right, device=self.device)

    def _add_own_size(self, answer: Tensor, truth: Tensor, none: bool, target_none: bool) -> None:
        """Add the measures that every protocol takes at the image's own size: ncIoU and boxes."""
        canvas = functional.canvas_intersection_union(answer, truth)
        inter, union, _ = functional.overlap(*canvas, none, target_none, self.protocol.empty_rule)
        self._increase(canvas_intersection=inter, canvas_union=union)
        if not target_none:
            self._increase(box_hits=is_hit(answer, truth))

    def _add_f1(self, prediction: Tensor, targets: Tensor) -> None:
        matched = functional.matched_overlaps(prediction, targets, self.f1_overlap).to(self.device, torch.float64)
        # The tolerance covers float32 rounding: a box of exactly half the area of another reaches the limit.
        right = (matched[:, None] >= torch.tensor(F1_AT, device=self.device).double() - 1e-6).sum(0).double()
        self.f1_sums += functional.f1(right, len(prediction), len(targets))
        self.true_positives += right
        self._increase(predicted=len(prediction), targets=len(targets))

    def _add_oracle(self, candidates: Tensor, targets: Tensor, target_none: bool, order: Tensor | None) -> None:
        # For a no-target prompt the best choice is to select nothing, which is perfect.
        counts = pairwise_counts(targets, candidates)
        united = functional.intersection_union(functional.best_of(candidates, *counts), targets.any(dim=0))
        inter, union, iou = self._overlaps([united], target_none, target_none)
        self._increase(oracle_samples=1, oracle_iou=iou, oracle_intersection=inter, oracle_union=union)
        inter_of, union_of = (count[targets.flatten(1).any(1)] for count in counts)  # without targets that are empty
        best = functional.best_overlaps(inter_of, union_of)
        self.recalled += (best[:, None].cpu() >= torch.tensor(RECALL_AT, dtype=torch.float64)).sum(0).to(self.device)
        ranked = (inter_of, union_of) if order is None else (inter_of[:, order], union_of[:, order])
        self.matched += torch.tensor(functional.matched_counts(*ranked, RECALL_AT), device=self.device)
        self._increase(pool_targets=len(best))

    def _overlaps(self, counts: list[tuple[int, int]], none: bool, target_none: bool) -> Overlap:
        """Summed intersection and union, and mean IoU, over the pairs of a sample."""
        rule = self.protocol
        counts = counts or [(0, 0)]  # paired masks, but neither an answer nor a target: a sample without weight
        pairs = [functional.overlap(*pair, none, target_none, rule.empty_rule, rule.iou_epsilon) for pair in counts]
        iou = sum(pair.iou for pair in pairs) / len(pairs)
        return Overlap(sum(pair.intersection for pair in pairs), sum(pair.union for pair in pairs), iou)

    def _increase(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            setattr(self, name, self._sum(name) + amount)

    def _sum(self, name: str) -> Tensor:
        value: Tensor = getattr(self, name)
        return value

    def _ratio(self, above: str, below: str, epsilon: float = 0.0, counted: str = "samples") -> Tensor:
        """One sum over another; NaN if nothing was counted. With an epsilon, 0 / 0 is 0."""
        value = self._sum(above) / (self._sum(below) + epsilon)
        return torch.where(self._sum(counted) > 0, value, torch.nan)


def _check(
    prediction: Tensor, targets: Tensor, candidates: Tensor | None, ignore: Tensor | None, scores: Tensor | None
) -> None:
    if scores is not None and candidates is not None and scores.shape != candidates.shape[:1]:
        size, got = tuple(candidates.shape[:1]), tuple(scores.shape)
        raise ValueError(f"candidate_scores must be {size}, one a candidate, got {got}")
    for name, masks in {"prediction": prediction, "targets": targets, "candidates": candidates}.items():
        if masks is None:
            continue
        if masks.ndim != 3 or masks.dtype != torch.bool:
            raise ValueError(f"{name} must be (K, H, W) bool, got {tuple(masks.shape)} {masks.dtype}")
        if masks.shape[1:] != targets.shape[1:]:
            raise ValueError(f"{name} must be of the targets' size {tuple(targets.shape[1:])}, got {masks.shape[1:]}")
    if ignore is not None and (ignore.dtype != torch.bool or ignore.shape != targets.shape[1:]):
        size = tuple(targets.shape[1:])
        raise ValueError(
            f"ignore must be bool and of the targets' size {size}, got {tuple(ignore.shape)} {ignore.dtype}"
        )
