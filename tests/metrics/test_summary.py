"""Scored samples to numbers: the same as measuring together, and intervals that hold what they should."""

import numpy as np
import pytest
import torch

from maskselect.metrics.referring import ReferringMetrics
from maskselect.metrics.summary import LEAST_IMAGES, add_up, intervals, paired_difference, sums_of
from maskselect.structures.scored import Scored


def _row(
    number: int, image: str, prediction: torch.Tensor, targets: torch.Tensor, protocol: str = "maskselect"
) -> Scored:
    metrics = ReferringMetrics(protocol=protocol)
    metrics.update(prediction, targets, targets)
    sums = sums_of(metrics)
    return Scored(str(number), image, "x", "", 0, len(targets), len(prediction), 0.1, sums["iou"], 3, 0.1, sums)


def _random(count: int, seed: int = 0) -> tuple[list[Scored], ReferringMetrics]:
    torch.manual_seed(seed)
    together, rows = ReferringMetrics(), []
    for number in range(count):
        targets = torch.rand(number % 3, 6, 7) > 0.5
        prediction = torch.cat([targets, torch.rand(number % 2, 6, 7) > 0.5])
        together.update(prediction, targets, targets)
        rows.append(_row(number, str(number // 2), prediction, targets))
    return rows, together


def test_adding_up_is_measuring_together() -> None:
    rows, together = _random(24)
    assert add_up(rows, ReferringMetrics).report() == together.report()
    assert add_up([Scored.from_json(row.as_json()) for row in rows], ReferringMetrics).report() == together.report()
    assert add_up([], ReferringMetrics).report()["gIoU"] is None


def test_intervals_hold_the_figure_and_are_those_of_single_draws() -> None:
    rows, together = _random(60)
    found = intervals(rows, ReferringMetrics, draws=400)
    measured = together.report()
    for name in ("gIoU", "cIoU", "F1", "N-acc", "T-acc"):
        low, high = found[name]
        assert low <= float(measured[name] or 0) <= high
    # The same draws one by one, over images.
    images = list(dict.fromkeys(row.image_id for row in rows))
    weights = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), 400)
    single = []
    for draw in weights:
        drawn = [
            row for image, times in zip(images, draw, strict=True) for row in rows * int(times) if row.image_id == image
        ]
        single.append(np.mean([row.iou for row in drawn]))
    assert np.allclose(found["gIoU"], 100 * np.percentile(single, [2.5, 97.5]), atol=0.006)


def test_no_interval_of_what_cannot_be_measured() -> None:
    targets = torch.ones(1, 4, 4).bool()
    rows = [_row(number, str(number), targets, targets) for number in range(LEAST_IMAGES)]
    found = intervals(rows, ReferringMetrics, draws=10)
    assert found["gIoU"] == [100.0, 100.0] and "N-acc" not in found
    assert intervals([], ReferringMetrics) == {}
    alarms = [_row(number, str(number), targets, targets[:0]) for number in range(LEAST_IMAGES)]
    assert set(intervals(alarms, ReferringMetrics, draws=10)) == {"gIoU", "F1", "N-acc"}  # no true pixel, no cIoU


def test_a_few_images_have_no_interval() -> None:
    rows, _ = _random(2 * LEAST_IMAGES)  # two samples an image
    assert intervals(rows, ReferringMetrics, draws=10)
    assert intervals(rows[:-2], ReferringMetrics, draws=10) == {}
    worse = [Scored.from_json({**row.as_json(), "iou": row.iou - 0.1}) for row in rows]
    assert paired_difference(rows[:2], worse[:2]) == (pytest.approx(-10.0), None)


def test_muse_counts_the_masks_of_an_images_questions_together() -> None:
    a, b, c = torch.eye(3, dtype=torch.bool)[:, None].expand(3, 2, 3)
    rows = [
        _row(0, "x", torch.stack([a, b]), a[None], "muse"),  # IoUs 1 and 0
        _row(1, "x", c[None], torch.stack([b, c]), "muse"),  # IoUs 1 and 0
        _row(2, "y", a[None], a[None], "muse"),
    ]
    report = add_up(rows, lambda: ReferringMetrics(protocol="muse")).report()
    assert report["gIoU"] == 75.0  # (1 + 1 + 1) / (max(3, 3) + 1), not of 5 pairs


def test_paired_difference() -> None:
    rows, _ = _random(60)
    assert paired_difference(rows, rows) == (0.0, (0.0, 0.0))
    worse = [Scored.from_json({**row.as_json(), "iou": row.iou - 0.1}) for row in rows]
    mean, edges = paired_difference(rows, worse)
    assert (mean, *(edges or ())) == pytest.approx((-10.0, -10.0, -10.0))


def test_records_of_others_are_refused() -> None:
    with pytest.raises(ValueError, match="not a scored sample"):
        Scored.from_json({"x": 1})
