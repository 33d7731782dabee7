"""Every real sample is read, checked, and scored with an oracle, which reaches 100 wherever the protocol allows it."""

from pathlib import Path

import numpy as np
import pytest

from maskselect.data.catalog import CATALOG
from maskselect.data.check import check
from maskselect.evaluation.samples import build_report, score_samples
from tests.real_samples import REAL_SAMPLES, Oracle, RealSample

NAMES = [f"{real.title} {real.split}" for real in REAL_SAMPLES]


def has_area(mask: np.ndarray) -> bool:
    return bool(mask.any()) and all(np.ptp(places) > 0 for places in np.nonzero(mask))


@pytest.mark.parametrize("real", REAL_SAMPLES, ids=NAMES)
def test_read_checked_and_scored(real: RealSample, shared_data: Path, tmp_path: Path) -> None:
    data = real.open(shared_data, tmp_path)
    report = check(data)
    assert not report.problems, report.examples
    assert report.samples == len(data) > 0
    protocol = CATALOG[real.dataset].protocol
    oracle = Oracle(data)
    rows = list(score_samples(oracle, oracle.samples(), protocol=protocol))
    metrics = build_report(rows, real.dataset, real.split, "oracle", False, protocol)["metrics"]["overall"]
    assert len(rows) == len(data)
    # Two published rules let nobody reach 100: mean IoU counts a rejection that is right as 0 (LAVT's evaluator), and
    # a box of mask2box that is one pixel wide has no area, so that nothing overlaps it (Text4Seg's).
    unions = [sample.target_mask for sample in data]
    reachable = {
        "mIoU": np.mean([bool(mask.any()) for mask in unions]),
        "Acc@0.5": np.mean([has_area(mask.numpy()) for mask in unions if mask.any()]),
    }
    del metrics["samples"]
    measured = {name: value for name, value in metrics.items() if value is not None}
    assert measured == {name: pytest.approx(100 * reachable.get(name, 1), abs=0.005) for name in measured}
    assert measured["gIoU"] == measured["cIoU"] == 100
