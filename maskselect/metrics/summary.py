"""Scored samples to numbers: any part of them, with intervals.

Samples of one image are not independent, so the bootstrap draws images, with all of their samples, not samples. A few
images tell nothing about others: below `LEAST_IMAGES` there is no interval, where a bootstrap would give a narrow one.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from maskselect.metrics.referring import ReferringMetrics
from maskselect.structures.scored import Scored

DRAWS = 1000
LEAST_IMAGES = 20
INTERVALS = ("gIoU", "cIoU", "F1", "N-acc", "T-acc")


def sums_of(metrics: ReferringMetrics) -> dict[str, Any]:
    """The state as plain numbers and lists."""
    return {name: torch.as_tensor(value).tolist() for name, value in metrics.metric_state.items()}


def add_up(rows: Iterable[Scored], make: Callable[[], ReferringMetrics]) -> ReferringMetrics:
    """Metrics over scored samples, as if they had been measured together. make: an empty one of the same protocol."""
    metrics = make()
    per_image = _per_image(list(rows), metrics)
    return _with_sums(metrics, {name: values.sum(0) for name, values in per_image.items()})


def intervals(
    rows: Sequence[Scored], make: Callable[[], ReferringMetrics], draws: int = DRAWS, seed: int = 0
) -> dict[str, list[float]]:
    """95 % bootstrap intervals over images, percent: {measure: [low, high]}, of those that can be measured.

    None of them below `LEAST_IMAGES` images.
    """
    per_image = _per_image(rows, make())
    images = len(per_image.get("samples", ()))
    if images < LEAST_IMAGES:
        return {}
    weights = _draws(images, draws, seed)
    # All draws at once: they are the last axis of every state, and the ratios are taken element by element.
    drawn = {name: np.moveaxis(np.tensordot(weights, values, 1), 0, -1) for name, values in per_image.items()}
    measured, whole = _with_sums(make(), drawn).fractions(), add_up(rows, make).report()
    found = {name: 100 * measured[name].numpy() for name in INTERVALS if whole.get(name) is not None}
    return {
        name: [round(float(edge), 2) for edge in np.nanpercentile(values, [2.5, 97.5])]
        for name, values in found.items()
    }


def paired_difference(
    first: Sequence[Scored], second: Sequence[Scored], draws: int = DRAWS, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """Mean difference of per-sample IoU, second minus first, in points, and its 95 % bootstrap interval over images.

    Both hold the same samples in the same order. No interval (None) below `LEAST_IMAGES` images.
    """
    images = {image: number for number, image in enumerate(dict.fromkeys(row.image_id for row in first))}
    sums, counts = np.zeros(len(images)), np.zeros(len(images))
    for one, other in zip(first, second, strict=True):
        sums[images[one.image_id]] += 100 * (other.iou - one.iou)
        counts[images[one.image_id]] += 1
    mean = float(sums.sum() / counts.sum())
    if len(images) < LEAST_IMAGES:
        return mean, None
    weights = _draws(len(images), draws, seed)
    low, high = np.percentile((weights @ sums) / (weights @ counts), [2.5, 97.5])
    return mean, (float(low), float(high))


def _draws(images: int, draws: int, seed: int) -> np.ndarray:
    """How often each image is in each draw: (draws, images) int64."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), draws)


def _per_image(rows: Sequence[Scored], metrics: ReferringMetrics) -> dict[str, np.ndarray]:
    """Every state summed over the samples of each image: (images, …) float64; none without rows."""
    if not rows:
        return {}
    images = {image: number for number, image in enumerate(dict.fromkeys(row.image_id for row in rows))}
    sums = {name: np.zeros((len(images), *np.shape(value))) for name, value in rows[0].sums.items()}
    for row in rows:
        for name, values in sums.items():
            values[images[row.image_id]] += row.sums[name]
    if metrics.protocol.paired:  # PixelLM counts the masks of an image's questions together
        sums["weight"] = np.maximum(sums["predicted"], sums["targets"])
    return sums


def _with_sums(metrics: ReferringMetrics, sums: dict[str, Any]) -> ReferringMetrics:
    for name, value in sums.items():
        setattr(metrics, name, torch.as_tensor(value, dtype=torch.float64))
    return metrics
