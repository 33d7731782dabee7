import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torchmetrics.classification import BinaryJaccardIndex

from maskselect.metrics.referring import F1_AT, PRECISION_AT, ReferringMetrics

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def boxes(*corners: tuple[int, int, int, int], size: tuple[int, int] = (20, 20)) -> torch.Tensor:
    """(K, H, W) bool from x0, y0, x1, y1."""
    masks = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


NONE = boxes()


def measured(*cases: tuple) -> dict[str, float | None]:
    metrics = ReferringMetrics()
    for case in cases:
        metrics.update(*case)
    return metrics.report()


# Spec 3.7: the self-tests of an evaluator.
def test_a_perfect_answer_is_a_hundred_in_everything() -> None:
    masks = boxes((0, 0, 5, 5), (10, 10, 15, 15))
    report = measured((masks, masks, masks), (NONE, NONE, masks))
    assert report.pop("samples") == 2
    assert set(report.values()) == {100.0}


def test_both_empty_is_a_perfect_rejection_and_leaves_the_sums_alone() -> None:
    report = measured((NONE, NONE))
    assert (report["gIoU"], report["N-acc"], report["F1"]) == (100.0, 100.0, 100.0)
    assert report["cIoU"] is None
    assert report["T-acc"] is None


def test_an_answer_where_nothing_was_asked_for() -> None:
    report = measured((boxes((0, 0, 10, 10)), NONE), (boxes((0, 0, 10, 10)), boxes((0, 0, 10, 10))))
    assert (report["gIoU"], report["cIoU"], report["N-acc"], report["F1"]) == (50.0, 50.0, 0.0, 50.0)


def test_nothing_where_something_was_asked_for() -> None:
    report = measured((NONE, boxes((0, 0, 10, 10))), (boxes((0, 0, 10, 10)), boxes((0, 0, 10, 10))))
    assert (report["gIoU"], report["cIoU"], report["T-acc"]) == (50.0, 50.0, 50.0)
    assert report["N-acc"] is None


def test_a_rejection_counts_whatever_pixels_it_comes_with() -> None:
    metrics = ReferringMetrics()
    metrics.update(boxes((10, 0, 20, 4)), boxes((0, 0, 6, 10)), predicted_none=True)
    assert (int(metrics.intersection), int(metrics.union)) == (0, 100)
    assert float(metrics.target_found) == 0


def test_the_empty_rules_of_others() -> None:
    for rule, giou in (("lisa", 1.0), ("rmsin", 0.0)):
        metrics = ReferringMetrics(protocol=rule)
        metrics.update(NONE, NONE)
        assert metrics.report()["gIoU"] == 100 * giou


def test_ciou_weighs_pixels_and_giou_samples() -> None:
    good = boxes((0, 0, 10, 10))
    half, small = boxes((0, 0, 2, 2)), boxes((0, 0, 2, 4))
    report = measured((good, good), (half, small))
    assert report["gIoU"] == 75.0
    assert report["cIoU"] == round(100 * 104 / 108, 2)


def test_nciou_weighs_images_alike_and_equals_ciou_at_1024() -> None:
    good = torch.ones(1, 10, 10, dtype=torch.bool)
    half = torch.zeros(1, 100, 100, dtype=torch.bool)
    half[:, :50] = True
    report = measured((good, good), (half, torch.ones_like(half)))
    assert report["ncIoU"] == 75.0
    assert report["cIoU"] == round(100 * 5100 / 10100, 2)
    pair = torch.rand(2, 1, 1024, 1024) > 0.5
    report = measured((pair[0], pair[1]))
    assert report["ncIoU"] == report["cIoU"]


def test_f1_counts_boxes_per_sample_then_averages() -> None:
    target = boxes((0, 0, 10, 10))
    report = measured(
        (boxes((0, 0, 10, 10), (15, 15, 18, 18)), target),  # 1 of 2 right: 2 / 3
        (boxes((0, 0, 10, 5)), target),  # box IoU exactly 0.5: right
        (boxes((0, 0, 10, 4)), target),  # 0.4: wrong
    )
    assert report["F1"] == round(100 * (2 / 3 + 1 + 0) / 3, 2)
    assert report["F1 micro"] == round(100 * 2 * 2 / (4 + 3), 2)
    assert report["F1@.5:.95"] == round(100 * (2 / 3 + 0.1 + 0) / 3, 2)


def test_precision_counts_targeted_samples_only_and_includes_the_limit() -> None:
    report = measured((boxes((0, 0, 10, 7)), boxes((0, 0, 10, 10))), (NONE, NONE), (NONE, boxes((0, 0, 1, 1))))
    assert [report[f"Pr@{limit}"] for limit in PRECISION_AT] == [50.0, 50.0, 50.0, 0.0, 0.0]


def test_the_oracle_takes_the_best_candidate_of_each_target() -> None:
    targets = boxes((0, 0, 10, 10), (10, 10, 20, 20))
    pool = boxes((0, 0, 10, 5), (0, 0, 10, 8), (10, 10, 20, 20), (0, 0, 20, 20))
    report = measured((NONE, targets, pool), (pool, NONE, pool), (NONE, targets, NONE))
    assert report["oracle_gIoU"] == round(100 * (0.9 + 1 + 0) / 3, 2)
    assert report["oracle_cIoU"] == round(100 * 180 / 400, 2)


def test_without_candidates_there_is_no_oracle() -> None:
    assert measured((NONE, NONE))["oracle_cIoU"] is None


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"prediction must be \(K, H, W\) bool"):
        ReferringMetrics().update(torch.zeros(1, 4, 4), NONE)
    with pytest.raises(ValueError, match="candidates must be of the targets' size"):
        ReferringMetrics().update(NONE, NONE, boxes(size=(4, 4)))


def random_cases(seed: int, count: int) -> list[Case]:
    rng = np.random.default_rng(seed)

    def draw(most: int, size: tuple[int, int]) -> torch.Tensor:
        masks = boxes(*[_box(rng, size) for _ in range(rng.integers(0, most + 1))], size=size)
        return masks & torch.from_numpy(rng.random(masks.shape) > 0.1)

    cases = []
    for _ in range(count):
        size = (int(rng.integers(8, 40)), int(rng.integers(8, 40)))
        targets, pool = draw(3, size), draw(5, size)
        pool = torch.cat([pool, targets[: rng.integers(0, len(targets) + 1)]])
        chosen = pool[torch.from_numpy(rng.random(len(pool)) > 0.6)]
        cases.append((chosen, targets, pool))
    return cases


def _box(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int, int, int]:
    y0, x0 = (int(rng.integers(0, side - 4)) for side in size)
    return x0, y0, x0 + int(rng.integers(2, 20)), y0 + int(rng.integers(2, 20))


def recomputed(cases: list[Case]) -> dict[str, float]:
    """The same numbers in plain numpy and float64, written from the spec and not from the code."""
    ious, inters, unions, canvas, f1s, rejected, accepted, oracle = [], 0, 0, np.zeros(2), [], [], [], []
    precision = []
    for chosen, targets, pool in ((a.numpy(), b.numpy(), c.numpy()) for a, b, c in cases):
        answer, truth = chosen.any(0), targets.any(0)
        i, u = float((answer & truth).sum()), float((answer | truth).sum())
        rows, columns = (np.floor(np.arange(1024) * n / 1024).astype(int) for n in truth.shape)
        big_answer, big_truth = answer[rows][:, columns], truth[rows][:, columns]
        ci, cu = float((big_answer & big_truth).sum()), float((big_answer | big_truth).sum())
        if len(targets) == 0:
            rejected.append(len(chosen) == 0)
            iou = float(rejected[-1])
            oracle.append((0.0, 0.0, 1.0))
        else:
            accepted.append(len(chosen) > 0)
            iou = i / u if u and accepted[-1] else 0.0
            precision.append([iou >= limit for limit in PRECISION_AT])
            best = np.zeros_like(truth)
            for target in targets:
                scores = [(c & target).sum() / max((c | target).sum(), 1) for c in pool]
                if scores and max(scores) > 0:
                    best |= pool[int(np.argmax(scores))]
            oi, ou = float((best & truth).sum()), float((best | truth).sum())
            oracle.append((oi, ou, oi / ou if ou else 0.0))
        ious.append(iou)
        inters, unions, canvas = inters + i, unions + u, canvas + np.array([ci, cu])
        f1s.append([f1_of(chosen, targets, limit) for limit in F1_AT])
    overs = np.array(oracle)
    result = {
        "gIoU": np.mean(ious), "cIoU": inters / unions, "ncIoU": canvas[0] / canvas[1], "N-acc": np.mean(rejected),
        "T-acc": np.mean(accepted), "F1": np.mean(f1s, 0)[0], "F1@.5:.95": np.mean(f1s),
        "oracle_gIoU": overs[:, 2].mean(), "oracle_cIoU": overs[:, 0].sum() / overs[:, 1].sum(),
    }  # fmt: skip
    return result | dict(zip((f"Pr@{limit}" for limit in PRECISION_AT), np.mean(precision, 0), strict=True))


def f1_of(chosen: np.ndarray, targets: np.ndarray, limit: float) -> float:
    if len(chosen) + len(targets) == 0:
        return 1.0
    pairs = np.zeros((len(chosen), len(targets)))
    for i, a in enumerate(chosen):
        for j, b in enumerate(targets):
            pairs[i, j] = box_iou(a, b)
    right = (pairs[linear_sum_assignment(-pairs)] >= limit - 1e-6).sum()
    return 2 * right / (len(chosen) + len(targets))


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    frames = []
    for mask in (a, b):
        filled = np.zeros_like(mask)
        if mask.any():
            y, x = np.nonzero(mask)
            filled[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
        frames.append(filled)
    return float((frames[0] & frames[1]).sum() / max((frames[0] | frames[1]).sum(), 1))


def test_agrees_with_an_independent_recomputation() -> None:
    cases = random_cases(3, 60)
    metrics = ReferringMetrics()
    for case in cases:
        metrics.update(*case)
    got = metrics.compute()
    for name, value in recomputed(cases).items():
        assert float(got[name]) == pytest.approx(float(value), abs=1e-6), name


def test_ciou_is_torchmetrics_jaccard_where_no_target_is_missing() -> None:
    metrics, reference = ReferringMetrics(), BinaryJaccardIndex()
    for chosen, targets, _ in random_cases(4, 40):
        if len(chosen) and len(targets):
            metrics.update(chosen, targets)
            reference.update(chosen.any(0).int(), targets.any(0).int())
    assert float(metrics.compute()["cIoU"]) == pytest.approx(float(reference.compute()), abs=1e-6)


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.permutations(range(6)))
def test_order_and_grouping_do_not_matter(seed: int, order: list[int]) -> None:
    cases = random_cases(seed, 6)
    whole, shuffled, parts = ReferringMetrics(), ReferringMetrics(), [ReferringMetrics(), ReferringMetrics()]
    for number, case in enumerate(cases):
        whole.update(*case)
        shuffled.update(*cases[order[number]])
        parts[number % 2].update(*case)
    parts[0].report()
    parts[0].merge_state(parts[1])
    expected = whole.report()
    assert shuffled.report() == pytest.approx(expected, nan_ok=True)
    assert parts[0].report() == pytest.approx(expected, nan_ok=True)


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_every_measure_lies_in_its_range_and_the_truth_is_perfect(seed: int) -> None:
    cases = [(a, b, c) for a, b, c in random_cases(seed, 3) if all(mask.any() for mask in b)]
    if not cases:
        return
    for answer in ("chosen", "truth"):
        report = measured(*((a if answer == "chosen" else b, b, c) for a, b, c in cases))
        values = [v for k, v in report.items() if k != "samples" and not k.startswith("oracle") and v is not None]
        assert all(0 <= value <= 100 for value in values)
        if answer == "truth":
            assert set(values) == {100.0}


PROCESS = """
    import sys, torch, torch.distributed as dist
    sys.path.insert(0, {folder!r})
    from test_referring import random_cases
    from maskselect.metrics.referring import ReferringMetrics
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
    metrics = ReferringMetrics()
    for case in random_cases(5, 11)[rank::2]:
        metrics.update(*case)
    print(sorted((name, round(float(value), 9)) for name, value in metrics.compute().items()))
    dist.destroy_process_group()
"""


@pytest.mark.slow  # two interpreters that import torch
def test_two_processes_add_up_to_one(tmp_path: Path) -> None:
    code = textwrap.dedent(PROCESS.format(folder=str(Path(__file__).parent)))
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    answers = [process.communicate(timeout=900)[0].strip() for process in running]
    metrics = ReferringMetrics()
    for case in random_cases(5, 11):
        metrics.update(*case)
    expected = str(sorted((name, round(float(value), 9)) for name, value in metrics.compute().items()))
    assert answers == [expected, expected]
