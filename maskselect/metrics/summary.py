"""Metrics of scored samples or of any subset, with bootstrap intervals.

Samples of one image are not independent, so the bootstrap draws images with all of their samples. Below `LEAST_IMAGES`
images there is no interval, because a bootstrap of few images is too narrow.
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
    """The state of metrics as plain numbers and lists."""
    return {name: torch.as_tensor(value).tolist() for name, value in metrics.metric_state.items()}


def add_up(rows: Iterable[Scored], make: Callable[[], ReferringMetrics]) -> ReferringMetrics:
    """Metrics of all scored samples. `make` returns empty metrics of the same protocol."""
    metrics = make()
    per_image = _per_image(list(rows), metrics)
    return _with_sums(metrics, {name: values.sum(0) for name, values in per_image.items()})


def intervals(
    rows: Sequence[Scored], make: Callable[[], ReferringMetrics], draws: int = DRAWS, seed: int = 0
) -> dict[str, list[float]]:
    """95 % bootstrap intervals over images, in percent.

    Returns:
        {measure: [low, high]} for each measure of `INTERVALS` that is defined; empty below `LEAST_IMAGES` images.
    """
    per_image = _per_image(rows, make())
    images = len(per_image.get("samples", ()))
    if images < LEAST_IMAGES:
        return {}
    weights = _draws(images, draws, seed)
    # All draws are computed at once: they are the last axis of every state.
    drawn = {name: np.moveaxis(np.tensordot(weights, values, 1), 0, -1) for name, values in per_image.items()}
    fractions, report = _with_sums(make(), drawn).fractions(), add_up(rows, make).report()
    return {
        name: [round(float(edge), 2) for edge in np.nanpercentile(100 * fractions[name].numpy(), [2.5, 97.5])]
        for name in INTERVALS
        if report.get(name) is not None
    }


def paired_difference(
    first: Sequence[Scored], second: Sequence[Scored], draws: int = DRAWS, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """Mean difference of per-sample IoU, second minus first, in points, and its 95 % bootstrap interval over images.

    Both sequences hold the same samples in the same order. The interval is None below `LEAST_IMAGES` images.
    """
    images = {image: number for number, image in enumerate(dict.fromkeys(row.image_id for row in first))}
    sums, counts = np.zeros(len(images)), np.zeros(len(images))
    for row, other in zip(first, second, strict=True):
        sums[images[row.image_id]] += 100 * (other.iou - row.iou)
        counts[images[row.image_id]] += 1
    mean = float(sums.sum() / counts.sum())
    if len(images) < LEAST_IMAGES:
        return mean, None
    weights = _draws(len(images), draws, seed)
    low, high = np.percentile((weights @ sums) / (weights @ counts), [2.5, 97.5])
    return mean, (float(low), float(high))


def _draws(images: int, draws: int, seed: int) -> np.ndarray:
    """Number of times each image is in each draw: (draws, images) int64."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), draws)


def _per_image(rows: Sequence[Scored], metrics: ReferringMetrics) -> dict[str, np.ndarray]:
    """Every state summed over the samples of each image: (images, …) float64; empty without rows."""
    if not rows:
        return {}
    images = {image: number for number, image in enumerate(dict.fromkeys(row.image_id for row in rows))}
    sums = {name: np.zeros((len(images), *np.shape(value))) for name, value in rows[0].sums.items()}
    for row in rows:
        for name, values in sums.items():
            values[images[row.image_id]] += row.sums[name]
    if metrics.protocol.paired:  # PixelLM adds up the masks of an image's questions
        sums["weight"] = np.maximum(sums["predicted"], sums["targets"])
    return sums


def _with_sums(metrics: ReferringMetrics, sums: dict[str, Any]) -> ReferringMetrics:
    for name, value in sums.items():
        setattr(metrics, name, torch.as_tensor(value, dtype=torch.float64))
    return metrics
