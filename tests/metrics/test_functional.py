import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from maskselect.metrics import functional
from maskselect.ops.boxes import pairwise_box_iou
from maskselect.ops.packed import pairwise_counts


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(functional).failed == 0


def square(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (20, 20)) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_intersection_and_union_by_hand() -> None:
    assert functional.intersection_union(square(0, 0, 4, 4), square(2, 0, 6, 4)) == (8, 24)


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(20, 20\) and \(20, 21\)"):
        functional.intersection_union(square(0, 0, 1, 1), torch.zeros(20, 21, dtype=torch.bool))


# What the rule of GRES makes of the four cases, and of a decision that contradicts the pixels (spec 3.7, number 10).
@pytest.mark.parametrize(
    ("counts", "predicted_none", "target_none", "expected"),
    [
        ((0, 0), True, True, (0, 0, 1.0)),
        ((0, 100), False, True, (0, 100, 0.0)),
        ((0, 60), True, False, (0, 60, 0.0)),
        ((0, 100), True, False, (0, 100, 0.0)),  # rejected, with 40 px drawn beside a target of 60 px
        ((30, 60), False, False, (30, 60, 0.5)),
        ((0, 0), False, True, (0, 0, 0.0)),  # not rejected, though no pixel is drawn: the decision counts
    ],
)
def test_gres_rule(counts: tuple, predicted_none: bool, target_none: bool, expected: tuple) -> None:
    assert functional.overlap(*counts, predicted_none, target_none) == expected


def test_the_canvas_is_the_identity_at_its_own_size() -> None:
    a, b = torch.rand(2, functional.CANVAS, functional.CANVAS) > 0.7
    assert functional.canvas_intersection_union(a, b) == functional.intersection_union(a, b)


def test_the_canvas_takes_the_size_away() -> None:
    small, large = square(0, 0, 8, 16, (16, 16)), square(0, 0, 32, 64, (64, 64))
    full_small, full_large = torch.ones_like(small), torch.ones_like(large)
    expected = functional.CANVAS**2 // 2, functional.CANVAS**2
    assert functional.canvas_intersection_union(small, full_small) == expected
    assert functional.canvas_intersection_union(large, full_large) == expected


def test_box_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 4, 4], [0, 0, 0, 0]])
    b = torch.tensor([[2.0, 0, 6, 4], [10, 10, 12, 12], [0, 0, 0, 0]])
    assert pairwise_box_iou(a, b).tolist() == [[pytest.approx(1 / 3), 0, 0], [0, 0, 0]]


def test_masks_of_one_box_match_by_box_and_not_by_mask() -> None:
    corner = square(0, 0, 10, 10)
    corner[1:9, 1:9] = False  # a frame has its filling's box
    assert functional.matched_overlaps(corner[None], square(0, 0, 10, 10)[None], "box").tolist() == [1.0]
    assert functional.matched_overlaps(corner[None], square(0, 0, 10, 10)[None], "mask").tolist() == [
        pytest.approx(0.36)
    ]


def test_matching_is_one_to_one_and_the_best_as_a_whole() -> None:
    # Greedily, the first prediction would take the first target (IoU 0.9) and leave nothing for the second.
    targets = torch.stack([square(0, 0, 10, 10), square(0, 2, 10, 12)])
    predictions = torch.stack([square(0, 1, 10, 10), square(0, 0, 9, 10)])
    assert sorted(functional.matched_overlaps(predictions, targets).tolist()) == pytest.approx([8 / 11, 0.9])
    twice = torch.stack([square(0, 0, 10, 10)] * 2)
    assert functional.matched_overlaps(twice, targets[:1]).tolist() == [1.0]


@pytest.mark.parametrize(("predicted", "true"), [(0, 0), (0, 2), (2, 0)])
def test_matching_with_nothing_on_a_side(predicted: int, true: int) -> None:
    masks = torch.ones(2, 4, 4, dtype=torch.bool)
    assert len(functional.matched_overlaps(masks[:predicted], masks[:true])) == 0


def test_the_best_candidates_are_united_and_strangers_left_out() -> None:
    targets = torch.stack([square(0, 0, 4, 4), square(10, 10, 14, 14), square(18, 0, 20, 2)])
    candidates = torch.stack([square(0, 0, 4, 3), square(0, 0, 4, 4), square(10, 10, 14, 13), square(5, 5, 8, 8)])

    def best(pool: torch.Tensor, aimed: torch.Tensor) -> torch.Tensor:
        return functional.best_of(pool, *pairwise_counts(aimed, pool))

    assert torch.equal(best(candidates, targets), candidates[1] | candidates[2])
    assert not best(candidates[:0], targets).any() and not best(candidates, targets[:0]).any()


masks = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=40)
@given(masks, st.integers(0, 5), st.integers(0, 5))
def test_matched_overlaps_agree_with_numpy_in_float64(rng: np.random.Generator, predicted: int, true: int) -> None:
    a, b = (rng.random((n, 9, 11)) > rng.uniform(0.3, 0.95) for n in (predicted, true))
    expected = np.zeros((predicted, true))
    for i in range(predicted):
        for j in range(true):
            expected[i, j] = (a[i] & b[j]).sum() / max((a[i] | b[j]).sum(), 1)
    best = expected[linear_sum_assignment(-expected)]
    got = functional.matched_overlaps(torch.from_numpy(a), torch.from_numpy(b), "mask")
    assert float(got.sum()) == pytest.approx(float(best.sum()), abs=1e-5)
    assert len(got) == min(predicted, true)


@settings(max_examples=60)
@given(masks)
def test_intersection_and_union_properties(rng: np.random.Generator) -> None:
    a, b = (torch.from_numpy(rng.random((7, 9)) > rng.random()) for _ in range(2))
    inter, union = functional.intersection_union(a, b)
    assert (inter, union) == functional.intersection_union(b, a)
    assert 0 <= inter <= union <= a.numel()
    assert inter + union == int(a.sum()) + int(b.sum())
