"""Scored samples to numbers: any part of them, with intervals.

Samples of one image are not independent, so the bootstrap draws images, with all of their samples, not samples.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from maskselect.metrics.referring import ReferringMetrics
from maskselect.structures.scored import Scored

DRAWS = 1000
INTERVALS = ("gIoU", "cIoU", "F1", "N-acc", "T-acc")


def sums_of(metrics: ReferringMetrics) -> dict[str, Any]:
    """The state as plain numbers and lists."""
    return {name: torch.as_tensor(value).tolist() for name, value in metrics.metric_state.items()}


def add_up(rows: Iterable[Scored], make: Callable[[], ReferringMetrics]) -> ReferringMetrics:
    """Metrics over scored samples, as if they had been measured together. make: an empty one of the same protocol."""
    found = [row.sums for row in rows]
    metrics = make()
    return _with_sums(
        metrics, {name: np.sum([sums[name] for sums in found], axis=0) for name in found[0]} if found else {}
    )


def intervals(
    rows: Sequence[Scored], make: Callable[[], ReferringMetrics], draws: int = DRAWS, seed: int = 0
) -> dict[str, list[float]]:
    """95 % bootstrap intervals over images, percent: {measure: [low, high]}, of those that can be measured."""
    if not rows:
        return {}
    images = {image: number for number, image in enumerate(dict.fromkeys(row.image_id for row in rows))}
    names = list(rows[0].sums)
    per_image = {name: np.zeros((len(images), *np.shape(rows[0].sums[name]))) for name in names}
    for row in rows:
        for name in names:
            per_image[name][images[row.image_id]] += row.sums[name]
    weights = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), draws)
    # All draws at once: they are the last axis of every state, and the ratios are taken element by element.
    drawn = {name: np.moveaxis(np.tensordot(weights, values, 1), 0, -1) for name, values in per_image.items()}
    measured = _with_sums(make(), drawn).fractions()
    found = {name: 100 * measured[name].numpy() for name in INTERVALS if name in measured}
    return {
        name: [round(float(edge), 2) for edge in np.nanpercentile(values, [2.5, 97.5])]
        for name, values in found.items()
        if not np.isnan(values).all()
    }


def paired_difference(
    first: Sequence[Scored], second: Sequence[Scored], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Mean difference of per-sample IoU, second minus first, with its 95 % bootstrap interval over images; points.

    Both hold the same samples in the same order.
    """
    images = {image: number for number, image in enumerate(dict.fromkeys(row.image_id for row in first))}
    sums, counts = np.zeros(len(images)), np.zeros(len(images))
    for one, other in zip(first, second, strict=True):
        sums[images[one.image_id]] += 100 * (other.iou - one.iou)
        counts[images[one.image_id]] += 1
    weights = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), draws)
    drawn = (weights @ sums) / (weights @ counts)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def _with_sums(metrics: ReferringMetrics, sums: dict[str, Any]) -> ReferringMetrics:
    for name, value in sums.items():
        setattr(metrics, name, torch.as_tensor(value, dtype=torch.float64))
    return metrics
