"""The evaluator: it runs the public predict path on samples and measures the answers.

`score_samples` yields one `Scored` per sample. `build_report` computes all numbers from these alone, so that an
interrupted run can resume and two runs can be compared sample by sample.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.progress import track
from maskselect.data.images import load_image
from maskselect.data.sizes import refuse_other_size
from maskselect.metrics.protocols import MATCHED_RECALL, RECALL, protocol_named
from maskselect.metrics.referring import ReferringMetrics
from maskselect.metrics.summary import DRAWS, LEAST_IMAGES, add_up, intervals, sums_of
from maskselect.ops.masks import resize_nearest
from maskselect.ops.overlap import pairwise_iou
from maskselect.structures.facts import ModelFacts
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.protocols import Proposer
from maskselect.structures.sample import Sample
from maskselect.structures.scored import Scored
from maskselect.structures.video import VideoSample

_TARGET_COUNTS = {0: "0", 1: "1", 5: "2-5", 10: "6-10", math.inf: "11+"}
_TARGET_SHARES = {0.01: "below 1 %", 0.05: "1 to 5 %", 0.2: "5 to 20 %", 1.0: "above 20 %"}
"""Upper limits of the targets' number and of their share of the image, and the names of the parts of a report."""

_WITH_GT = ", with the ground-truth masks added, whose score is the median of the pool"

CEILING = ("oracle_gIoU", "oracle_cIoU", *RECALL, *MATCHED_RECALL)

Watcher = Callable[[Scored, Sample, MaskGroup, Tensor | None], None]
"""Called with a scored sample, the sample, its answer, and the pool (N, H, W) bool, None without a pool."""


class Selector(Protocol):
    """The part of `maskselect.predictor.Model` that the evaluator uses. threshold: None if the system uses none."""

    threshold: float | None

    def facts(self) -> ModelFacts:
        """Name, fingerprint and training data."""
        ...

    def select_many(
        self,
        image: np.ndarray,
        prompts: list[str],
        references: list[list[np.ndarray]] | None = None,
        *,
        threshold: float | None = None,
        extra_candidates: np.ndarray | None = None,
        keep_pool: bool = False,
    ) -> list[MaskGroup]:
        """One group per prompt: masks of score at least `threshold`, by falling score.

        references: (H, W) bool masks of each prompt.  extra_candidates: (K, H, W) bool.
        """
        ...


def score_samples(
    model: Selector,
    samples: Iterable[Sample],
    *,
    total: int | None = None,
    what: str = "samples",
    with_gt: bool = False,
    protocol: str = "maskselect",
    done: Iterable[str] = (),
    watch: Watcher | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Scored]:
    """Measure the model's answer to each sample. Consecutive samples of one image share one call of the model.

    Args:
        model: the model.
        samples: in any order.
        total: number of samples, for the progress bar.
        what: name of the samples in the progress bar.
        with_gt: add the ground-truth masks of the image to the pool, which shows what selection alone can do.
        protocol: of `maskselect.metrics.protocols`.
        done: ids of samples to skip, because they are scored already.
        watch: called with each scored sample.
        left_out: receives the samples of images that fail; without it the first failure raises.
    """
    skipped = set(done)
    left = (one for one in track(samples, total, f"Evaluating {what}", "samples") if one.sample_id not in skipped)
    for group in _by_image(left, with_gt):
        rows: list[Scored] = []
        with going_on(left_out, *names_of(group)):
            rows = list(_score_group(model, group, with_gt, protocol, watch))
        yield from rows


def build_report(
    rows: Sequence[Scored],
    dataset: str,
    split: str,
    model_name: str,
    with_gt: bool,
    protocol: str,
    overlap: Sequence[str] = (),
) -> dict[str, Any]:
    """The report of an evaluation, ready for JSON. Metrics are in percent, null if there was nothing to measure.

    Args:
        rows: scored samples.
        dataset: name of the data set.
        split: of the data set.
        model_name: name of the model.
        with_gt: whether the ground-truth masks joined the pool.
        protocol: of `maskselect.metrics.protocols`.
        overlap: sentences about evaluated data seen in training, see `maskselect.evaluation.leakage`.

    Returns:
        dataset, split, model, samples, protocol, metrics {overall, w/o mask-ref, w/ mask-ref}, intervals, by_kind,
        by_targets, by_size, images, candidates_per_image (null without a pool), undecoded, repaired and cut (see
        `text_shares`), latency and overlap.

    Raises:
        ValueError: there is no sample.
    """
    if not rows:
        raise ValueError(f"dataset {dataset}, split {split!r} has no sample to evaluate")

    def make() -> ReferringMetrics:
        return ReferringMetrics(protocol=protocol)

    parts = {
        "overall": list(rows),
        "w/o mask-ref": [row for row in rows if not row.references],
        "w/ mask-ref": [row for row in rows if row.references],
    }
    images = {row.image_id: row.candidates for row in rows}
    pools = [count for count in images.values() if count is not None]
    seconds = sum(row.seconds for row in rows)
    return {
        "dataset": dataset,
        "split": split,
        "model": model_name,
        "samples": len(rows),
        "protocol": _describe(with_gt, protocol, len(images)),
        "metrics": {part: add_up(some, make).report() for part, some in parts.items()},
        "ground_truth_candidates": with_gt,
        "intervals": {part: intervals(some, make) for part, some in parts.items()},
        "by_kind": _split(rows, sorted({row.kind for row in rows} - {""}), lambda row: row.kind, make),
        "by_targets": _split(rows, _TARGET_COUNTS.values(), lambda row: _bucket(row.targets, _TARGET_COUNTS), make),
        "by_size": _split(
            [row for row in rows if not row.no_target],
            _TARGET_SHARES.values(),
            lambda row: _bucket(row.target_share, _TARGET_SHARES),
            make,
        ),
        "images": len(images),
        "candidates_per_image": round(sum(pools) / len(pools), 2) if pools else None,
        **text_shares(rows),
        "latency": {
            "seconds_per_image": round(seconds / len(images), 4),
            "seconds_per_prompt": round(seconds / len(rows), 4),
            "prompts_per_image": round(len(rows) / len(images), 2),
        },
        "overlap": list(overlap),
    }


class Written(Protocol):
    """An answer that may be a text; see `MaskGroup`."""

    @property
    def failure(self) -> str | None:
        """Why the text could not be decoded."""
        ...

    @property
    def repairs(self) -> int:
        """Number of repairs."""
        ...

    @property
    def cut(self) -> bool:
        """The text ends at the maximum length of an answer."""
        ...


def text_shares(answers: Sequence[Written]) -> dict[str, float]:
    """How many answers were written badly, in percent of all answers.

    Returns:
        undecoded: invalid answers, which could not be decoded.
        repaired: answers that were decoded after at least one repair.
        cut: answers that end at the maximum length. They are among the undecoded or repaired ones, unless the text
            before the limit is well formed.
    """
    counts = {
        "undecoded": sum(answer.failure is not None for answer in answers),
        "repaired": sum(answer.failure is None and answer.repairs > 0 for answer in answers),
        "cut": sum(answer.cut for answer in answers),
    }
    return {name: round(100 * count / len(answers), 2) for name, count in counts.items()}


def measure_ceiling(
    proposer: Proposer, samples: Iterable[Sample], total: int | None = None, left_out: LeftOut | None = None
) -> dict[str, Any]:
    """Measure a candidate pool without selection (RAS, Table 6), in percent.

    Args:
        proposer: returns the candidates.
        samples: annotated samples.
        total: number of samples, for the progress bar.
        left_out: receives the samples of images that fail; without it the first failure raises.

    Returns:
        Oracle gIoU and cIoU; the share of targets with a candidate of IoU 0.5 to 0.95, and with one of their own
        ("matched"); images, samples and candidates_per_image.

    Raises:
        ValueError: there is no sample.
    """
    metrics = ReferringMetrics(protocol=replace(protocol_named("maskselect"), measures=CEILING))
    images = candidates = 0
    for group in _by_image(track(samples, total, "Proposing", "samples"), False):
        with going_on(left_out, *names_of(group)):
            proposals = proposer.propose(load_group(group)[0])
            pool, scores = proposals.masks.cpu(), proposals.scores.cpu()
            images, candidates = images + 1, candidates + len(pool)
            for sample in group:
                targets = sample.gt_pool[list(sample.targets)]
                metrics.update(pool[:0], targets, pool, ignore=sample.ignore, candidate_scores=scores)
    if images == 0:
        raise ValueError("there is no sample to measure the candidates on")
    return {"images": images, "candidates_per_image": round(candidates / images, 2), **metrics.report()}


def names_of(group: Sequence[Sample | VideoSample]) -> list[str]:
    """The names of samples in `LeftOut`."""
    return [f"sample {sample.sample_id}" for sample in group]


def load_group(group: Sequence[Sample]) -> tuple[np.ndarray, list[str], list[list[np.ndarray]]]:
    """What `Model.select_many` takes for samples of one image: the image, the prompts and their reference masks.

    Raises:
        ValueError: the image cannot be read, or has another size than the masks.
    """
    image = load_image(group[0].image)
    for sample in group:
        refuse_other_size(sample, (image.shape[0], image.shape[1]))
    references = [[mask.numpy() for mask in sample.prompt.references] for sample in group]
    return image, [sample.prompt.text for sample in group], references


def _split(
    rows: Sequence[Scored], names: Iterable[str], name_of: Callable[[Scored], str], make: Callable[[], ReferringMetrics]
) -> dict[str, Any]:
    """The report of each part that has samples."""
    parts = {name: [row for row in rows if name_of(row) == name] for name in names}
    return {name: add_up(some, make).report() for name, some in parts.items() if some}


def _bucket(value: float, names: Mapping[float, str]) -> str:
    return next(name for limit, name in names.items() if value <= limit)


def _by_image(samples: Iterable[Sample], same_pool: bool) -> Iterator[list[Sample]]:
    """Runs of samples of one image. same_pool: their ground-truth pools, which become candidates, are equal too."""
    for _, run in groupby(samples, key=lambda sample: sample.image_id):
        group: list[Sample] = []
        for sample in run:
            if same_pool and group and not torch.equal(sample.gt_pool, group[0].gt_pool):
                yield group
                group = []
            group.append(sample)
        yield group


def _score_group(
    model: Selector, group: list[Sample], with_gt: bool, protocol: str, watch: Watcher | None
) -> Iterator[Scored]:
    """Score all prompts of one image."""
    (image, texts, references), truth = load_group(group), group[0].gt_pool
    extra = truth.numpy() if with_gt else None
    start = time.perf_counter()
    answers = model.select_many(image, texts, references, extra_candidates=extra, keep_pool=True)
    seconds = (time.perf_counter() - start) / len(group)
    pool, order = _pool(answers[0].pool, truth, with_gt)
    for sample, answer in zip(group, answers, strict=True):
        row = _measure(sample, answer, pool, order, seconds, protocol)
        if watch is not None:
            watch(row, sample, answer, pool)
        yield row


def _pool(candidates: MaskSet | None, truth: Tensor, with_gt: bool) -> tuple[Tensor | None, Tensor | None]:
    """The candidates (N, H, W) at the size of the ground truth, and the proposer's scores (N,); None without a pool.

    A very large image is processed at a smaller size, but the oracle is measured at the image's own. Ground-truth masks
    in the pool keep their own size, and their scores place them behind all others.
    """
    if candidates is None:
        return None, None
    proposed = len(candidates) - (len(truth) if with_gt else 0)
    pool = resize_nearest(candidates.masks[:proposed].cpu(), (truth.shape[1], truth.shape[2]))
    order = candidates.scores[:proposed].cpu()
    if with_gt:
        pool, order = torch.cat([pool, truth]), torch.cat([order, order.new_full((len(truth),), -torch.inf)])
    return pool, order


def _measure(
    sample: Sample, answer: MaskGroup, pool: Tensor | None, order: Tensor | None, seconds: float, protocol: str
) -> Scored:
    """Measure one answer. order: the proposer's scores of the pool."""
    targets = sample.gt_pool[list(sample.targets)]
    metrics = ReferringMetrics(protocol=protocol)
    metrics.update(
        torch.from_numpy(answer.masks),
        targets,
        pool,
        predicted_none=answer.no_target,
        ignore=sample.ignore,
        candidate_scores=order,
    )
    scores, right = answer.candidate_scores, torch.zeros(0, dtype=torch.bool)
    if pool is None or scores is None or len(scores) != len(pool):
        scores = np.zeros(0)
    elif len(pool):
        right = pairwise_iou(pool, targets).amax(1) >= 0.5 if len(targets) else right.new_zeros(len(pool))
    sums = sums_of(metrics)
    return Scored(
        sample_id=sample.sample_id,
        image_id=sample.image_id,
        prompt=sample.prompt.text,
        kind=sample.kind,
        references=len(sample.prompt.references),
        targets=len(sample.targets),
        chosen=len(answer),
        target_share=round(float(sample.target_mask.float().mean()), 6),
        iou=round(sums["iou"] / sums["weight"], 6) if sums["weight"] else 1.0,  # neither an answer nor a target
        candidates=None if pool is None else len(pool),
        failure=answer.failure,
        repairs=answer.repairs,
        cut=answer.cut,
        seconds=round(seconds, 5),
        sums=sums,
        scores=tuple(round(float(score), 4) for score in scores),
        right=tuple(right.tolist()),
    )


def _describe(with_gt: bool, protocol: str, images: int) -> dict[str, str]:
    """How the numbers were measured, in words."""
    few = f"none: fewer than {LEAST_IMAGES} images tell too little about others"
    return {
        "name": protocol,
        "path": "public predict path: Model.select_many, prompts of one image together",
        "candidates": "the model's own proposer" + (_WITH_GT if with_gt else ""),
        **protocol_named(protocol).describe(),
        "F1": "our definition: one-to-one (Hungarian) on box IoU at 0.5, per-sample F1, then the mean; both empty = 1",
        "oracle": "for each target the candidate of highest IoU, united",
        "latency": "wall time of select_many, candidates and encoding included",
        "intervals": few if images < LEAST_IMAGES else f"95 %, bootstrap over images, {DRAWS:,} draws",
    }
