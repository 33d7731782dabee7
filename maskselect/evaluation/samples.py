"""The evaluator: asks a model what a user would ask it, through the public predict path, and measures the answers.

Two halves: `score_samples` asks and keeps one `Scored` a sample; `build_report` makes the numbers from those alone, so
that a run that was interrupted goes on, and two runs can be compared sample by sample.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.protocols import Proposer
from maskselect.structures.sample import Sample
from maskselect.structures.scored import Scored

WITHOUT, WITH = "w/o mask-ref", "w/ mask-ref"
_TARGET_COUNTS = ((0, "0"), (1, "1"), (5, "2-5"), (10, "6-10"))
_TARGET_SHARES = ((0.01, "below 1 %"), (0.05, "1 to 5 %"), (0.2, "5 to 20 %"), (1.0, "above 20 %"))

CEILING = ("oracle_gIoU", "oracle_cIoU", *RECALL, *MATCHED_RECALL)

Watcher = Callable[[Scored, Sample, MaskGroup, Tensor | None], None]
"""Sees each scored sample with its answer and the (N, H, W) pool, None where the system has none."""


class Selector(Protocol):
    """The part of `maskselect.predictor.Model` that is evaluated."""

    def select_many(
        self,
        image: np.ndarray,
        prompts: list[str],
        references: list[list[np.ndarray]] | None = None,
        *,
        extra_candidates: np.ndarray | None = None,
        keep_pool: bool = False,
    ) -> list[MaskGroup]:
        """One answer a prompt. references: for each prompt its (H, W) bool masks. extra_candidates: (K, H, W) bool."""
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
    """Asks the samples, those of one image in one call as long as they follow each other, and measures each.

    total: how many samples there will be, for the progress bar.  what: what the bar calls them.
    with_gt: the ground-truth masks of the image join the pool, which shows what selection alone can do.
    protocol: of `maskselect.metrics.protocols`.
    done: ids of samples that are left out, because they were scored already.
    left_out: gets the samples of images that cannot be asked; without it the first such image raises.
    """
    known = set(done)
    left = (
        sample for sample in track(samples, total, f"Evaluating {what}", "samples") if sample.sample_id not in known
    )
    for group in _by_image(left, with_gt):
        rows: list[Scored] = []
        with going_on(left_out, *(f"sample {sample.sample_id}" for sample in group)):
            rows = list(_ask(model, group, with_gt, protocol, watch))
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
    """The report as JSON: dataset, split, model, samples, protocol, metrics {overall, w/o mask-ref, w/ mask-ref},
    intervals, by_kind, by_targets, by_size, images, candidates_per_image (null without a pool), undecoded (the share of
    answers whose text could not be decoded, percent), latency and overlap.

    overlap: sentences on what the model may have seen of this in training, see `maskselect.evaluation.leakage`.
    Metrics are percent, null where nothing was there to measure. Raises ValueError when there is no sample.
    """
    if not rows:
        raise ValueError(f"dataset {dataset}, split {split!r} has no sample to evaluate")

    def make() -> ReferringMetrics:
        return ReferringMetrics(protocol=protocol)

    parts = {
        "overall": list(rows),
        WITHOUT: [row for row in rows if not row.references],
        WITH: [row for row in rows if row.references],
    }
    images = {row.image_id: row.candidates for row in rows}
    pools = [count for count in images.values() if count is not None]
    seconds = sum(row.seconds for row in rows)
    return {
        "dataset": dataset,
        "split": split,
        "model": model_name,
        "samples": len(rows),
        "protocol": _protocol(with_gt, protocol, len(images)),
        "metrics": {part: add_up(some, make).report() for part, some in parts.items()},
        "ground_truth_candidates": with_gt,
        "intervals": {part: intervals(some, make) for part, some in parts.items()},
        "by_kind": _split(rows, sorted({row.kind for row in rows} - {""}), lambda row: row.kind, make),
        "by_targets": _split(rows, _names(_TARGET_COUNTS, "11+"), lambda row: _bucket(row.targets), make),
        "by_size": _split(rows, _names(_TARGET_SHARES), _size_bucket, make),
        "images": len(images),
        "candidates_per_image": round(sum(pools) / len(pools), 2) if pools else None,
        "undecoded": round(100 * sum(row.failure is not None for row in rows) / len(rows), 2),
        "latency": {
            "seconds_per_image": round(seconds / len(images), 4),
            "seconds_per_prompt": round(seconds / len(rows), 4),
            "prompts_per_image": round(len(rows) / len(images), 2),
        },
        "overlap": list(overlap),
    }


def measure_ceiling(
    proposer: Proposer, samples: Iterable[Sample], total: int | None = None, left_out: LeftOut | None = None
) -> dict[str, Any]:
    """What no selector can pass with these candidates (RAS, Table 6), percent: oracle gIoU and cIoU, and the share of
    targets that have a candidate of IoU 0.5 to 0.95, and that have one of their own ("matched"); with images, samples
    and candidates_per_image.

    left_out: see `score_samples`.
    Raises ValueError when there is no sample.
    """
    metrics = ReferringMetrics(protocol=replace(protocol_named("maskselect"), measures=CEILING))
    images = candidates = 0
    for group in _by_image(track(samples, total, "Proposing", "samples"), False):
        with going_on(left_out, *(f"sample {sample.sample_id}" for sample in group)):
            image = load_image(group[0].image)
            for sample in group:
                refuse_other_size(sample, (image.shape[0], image.shape[1]))
            found = proposer.propose(image)
            pool, scores = found.masks.cpu(), found.scores.cpu()
            images, candidates = images + 1, candidates + len(pool)
            for sample in group:
                targets = sample.gt_pool[list(sample.targets)]
                metrics.update(pool[:0], targets, pool, ignore=sample.ignore, candidate_scores=scores)
    if images == 0:
        raise ValueError("there is no sample to measure the candidates on")
    return {"images": images, "candidates_per_image": round(candidates / images, 2), **metrics.report()}


def _split(
    rows: Sequence[Scored], names: list[str], name_of: Callable[[Scored], str], make: Callable[[], ReferringMetrics]
) -> dict[str, Any]:
    """The report of each part that has samples."""
    parts = {name: [row for row in rows if name_of(row) == name] for name in names}
    return {name: add_up(some, make).report() for name, some in parts.items() if some}


def _by_image(samples: Iterable[Sample], same_pool: bool) -> Iterator[list[Sample]]:
    """Runs of samples that share an image, and the ground-truth pool too where that becomes candidates."""
    for _, run in groupby(samples, key=lambda sample: sample.image_id):
        group: list[Sample] = []
        for sample in run:
            if same_pool and group and not torch.equal(sample.gt_pool, group[0].gt_pool):
                yield group
                group = []
            group.append(sample)
        yield group


def _ask(model: Selector, group: list[Sample], with_gt: bool, protocol: str, watch: Watcher | None) -> Iterator[Scored]:
    """One image and all of its prompts."""
    image, truth = load_image(group[0].image), group[0].gt_pool
    for sample in group:
        refuse_other_size(sample, (image.shape[0], image.shape[1]))
    references = [[mask.numpy() for mask in sample.prompt.references] for sample in group]
    extra = truth.numpy() if with_gt else None
    start = time.perf_counter()
    texts = [sample.prompt.text for sample in group]
    answers = model.select_many(image, texts, references, extra_candidates=extra, keep_pool=True)
    seconds = (time.perf_counter() - start) / len(group)
    pool, order = _pool(answers[0].pool, truth, with_gt)
    for sample, answer in zip(group, answers, strict=True):
        row = _measure(sample, answer, pool, order, seconds, protocol)
        if watch is not None:
            watch(row, sample, answer, pool)
        yield row


def _pool(found: MaskSet | None, truth: Tensor, with_gt: bool) -> tuple[Tensor | None, Tensor | None]:
    """The candidates at the size of the ground truth, and the proposer's scores; None where the system has none.

    A very large image is worked on at a smaller size; the oracle is measured at its own. Ground-truth masks that joined
    the pool count at their own size, too, and behind all others.
    """
    if found is None:
        return None, None
    proposed = len(found) - (len(truth) if with_gt else 0)
    pool = resize_nearest(found.masks[:proposed].cpu(), (truth.shape[1], truth.shape[2]))
    order = found.scores[:proposed].cpu()
    if with_gt:
        pool, order = torch.cat([pool, truth]), torch.cat([order, order.new_full((len(truth),), -torch.inf)])
    return pool, order


def _measure(
    sample: Sample, answer: MaskGroup, pool: Tensor | None, order: Tensor | None, seconds: float, protocol: str
) -> Scored:
    """One answer. order: the proposer's scores of the pool."""
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
    scores = answer.candidate_scores
    known = pool is not None and scores is not None and len(scores) == len(pool) and len(pool) > 0
    right = torch.zeros(0 if pool is None else len(pool), dtype=torch.bool)
    if pool is not None and known and len(targets):
        right = pairwise_iou(pool, targets).amax(1) >= 0.5
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
        seconds=round(seconds, 5),
        sums=sums,
        scores=tuple(round(float(score), 4) for score in scores) if scores is not None and known else (),
        right=tuple(right.tolist()) if known else (),
    )


def _protocol(with_gt: bool, protocol: str, images: int) -> dict[str, str]:
    """How the numbers came about, in words, for whoever compares them with others; the rules in the protocol's own."""
    few = f"none: fewer than {LEAST_IMAGES} images tell too little about others"
    return {
        "name": protocol,
        "path": "public predict path: Model.select_many, prompts of one image together",
        "candidates": "the model's own proposer" + (", with the ground-truth masks added" if with_gt else ""),
        **protocol_named(protocol).describe(),
        "F1": "our definition: one-to-one (Hungarian) on box IoU at 0.5, per-sample F1, then the mean; both empty = 1",
        "oracle": "for each target the candidate of highest IoU, united",
        "latency": "wall time of select_many, candidates and encoding included",
        "intervals": few if images < LEAST_IMAGES else f"95 %, bootstrap over images, {DRAWS:,} draws",
    }


def _bucket(targets: int) -> str:
    return next((name for most, name in _TARGET_COUNTS if targets <= most), "11+")


def _size_bucket(row: Scored) -> str:
    """By the share of the image that the targets cover; samples without targets have none."""
    return "" if row.no_target else next(name for most, name in _TARGET_SHARES if row.target_share <= most)


def _names(buckets: tuple[tuple[float, str], ...], last: str | None = None) -> list[str]:
    return [*(name for _, name in buckets), *([last] if last else [])]
