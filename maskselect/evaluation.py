"""The evaluator: asks a model what a user would ask it, through the public predict path, and measures the answers."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.progress import track
from maskselect.data.images import load_image
from maskselect.metrics.referring import ReferringMetrics
from maskselect.ops.masks import resize_nearest
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import Sample

WITHOUT, WITH = "w/o mask-ref", "w/ mask-ref"
_TARGET_COUNTS = ((0, "0"), (1, "1"), (5, "2-5"), (10, "6-10"))


class Selector(Protocol):
    """The part of `maskselect.predictor.Model` that is evaluated."""

    def select_many(
        self,
        image: np.ndarray,
        prompts: list[str],
        references: list[list[np.ndarray]] | None = None,
        *,
        extra_candidates: np.ndarray | None = None,
    ) -> list[MaskGroup]:
        """One answer a prompt. references: for each prompt its (H, W) bool masks. extra_candidates: (K, H, W) bool."""
        ...

    def candidates(self, image: np.ndarray) -> MaskSet:
        """The pool that the answers for this image were chosen from, without extra ones; at any size."""
        ...


def evaluate(
    model: Selector,
    samples: Iterable[Sample],
    *,
    dataset: str,
    split: str,
    model_name: str,
    total: int | None = None,
    candidates_with_gt: bool = False,
) -> dict[str, Any]:
    """Asks all `samples`, those of one image in one call as long as they follow each other, and gives the report.

    total: how many samples there will be, for the progress bar.
    candidates_with_gt: the ground-truth masks of the image join the pool, which shows what selection alone can do.

    The report is JSON: dataset, split, model, samples, protocol, metrics {overall, w/o mask-ref, w/ mask-ref}, by_kind,
    by_targets, images, candidates_per_image and latency. Metrics are percent, null where nothing was there to measure.
    Raises ValueError when there is no sample.
    """
    tally = _Tally()
    counted = track(samples, total, f"Evaluating {dataset} {split}", "samples")
    for group in _by_image(counted, candidates_with_gt):
        _ask(model, group, candidates_with_gt, tally)
    if tally.samples == 0:
        raise ValueError(f"dataset {dataset}, split {split!r} has no sample to evaluate")
    return {
        "dataset": dataset,
        "split": split,
        "model": model_name,
        "samples": tally.samples,
        "protocol": _protocol(candidates_with_gt),
        "metrics": {part: tally.parts[part].report() for part in ("overall", WITHOUT, WITH)},
        "by_kind": {kind: metrics.report() for kind, metrics in sorted(tally.kinds.items())},
        "by_targets": {name: m.report() for name in _bucket_names() if (m := tally.target_counts.get(name))},
        "images": tally.images,
        "candidates_per_image": round(tally.candidates / tally.images, 2),
        "latency": {
            "seconds_per_image": round(tally.seconds / tally.images, 4),
            "seconds_per_prompt": round(tally.seconds / tally.samples, 4),
            "prompts_per_image": round(tally.samples / tally.images, 2),
        },
    }


@dataclass
class _Tally:
    """Everything counted so far. parts, kinds and target_counts hold the same samples, split in three ways."""

    parts: defaultdict[str, ReferringMetrics] = field(default_factory=lambda: defaultdict(ReferringMetrics))
    kinds: defaultdict[str, ReferringMetrics] = field(default_factory=lambda: defaultdict(ReferringMetrics))
    target_counts: defaultdict[str, ReferringMetrics] = field(default_factory=lambda: defaultdict(ReferringMetrics))
    samples: int = 0
    images: int = 0
    candidates: int = 0
    seconds: float = 0.0

    def add(self, sample: Sample, answer: MaskGroup, pool: Tensor) -> None:
        """Measures one answer once; its sums then go wherever the sample belongs."""
        one = ReferringMetrics()
        one.update(torch.from_numpy(answer.masks), sample.gt_pool[list(sample.targets)], pool)
        belongs = [self.parts["overall"], self.parts[WITH if len(sample.prompt.references) else WITHOUT]]
        belongs.append(self.target_counts[_bucket(len(sample.targets))])
        if sample.kind:
            belongs.append(self.kinds[sample.kind])
        for metrics in belongs:
            metrics.merge_state(one)
        self.samples += 1


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


def _ask(model: Selector, group: list[Sample], with_gt: bool, tally: _Tally) -> None:
    """One image and all of its prompts."""
    image, truth = load_image(group[0].image), group[0].gt_pool
    references = [[mask.numpy() for mask in sample.prompt.references] for sample in group]
    extra = truth.numpy() if with_gt else None
    start = time.perf_counter()
    answers = model.select_many(image, [s.prompt.text for s in group], references, extra_candidates=extra)
    tally.seconds += time.perf_counter() - start
    # A very large image is worked on at a smaller size; answers come back at its own, and the oracle is measured there.
    pool = resize_nearest(model.candidates(image).masks.cpu(), (truth.shape[1], truth.shape[2]))
    if with_gt:
        pool = torch.cat([pool, truth])
    tally.images += 1
    tally.candidates += len(pool)
    for sample, answer in zip(group, answers, strict=True):
        tally.add(sample, answer, pool)


def _protocol(with_gt: bool) -> dict[str, str]:
    """How the numbers came about, in words, for whoever compares them with others."""
    return {
        "path": "public predict path: Model.select_many, prompts of one image together",
        "candidates": "the model's own proposer" + (", with the ground-truth masks added" if with_gt else ""),
        "resolution": "each image's own size; ncIoU on a 1024x1024 canvas",
        "empty answers": "as gRefCOCO's evaluator (ReLA); an empty group says that nothing answers the prompt",
        "F1": "our definition: one-to-one (Hungarian) on box IoU at 0.5, per-sample F1, then the mean; both empty = 1",
        "oracle": "for each target the candidate of highest IoU, united",
        "latency": "wall time of select_many, candidates and encoding included",
    }


def _bucket(targets: int) -> str:
    return next((name for most, name in _TARGET_COUNTS if targets <= most), "11+")


def _bucket_names() -> list[str]:
    return [*(name for _, name in _TARGET_COUNTS), "11+"]
