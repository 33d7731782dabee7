"""The set loss against transformers' Mask2FormerLoss, direct formulas, and properties of a matching."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former as theirs

from maskselect.losses.sets import Matches, SetLoss

ROWS, QUERIES, SIDE = 3, 6, 8
EXACT = SetLoss(points=None)
COUNTS = (2, 0, 3)


def predictions(rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores (R, Q) and masks (R, Q, 8, 8)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, QUERIES, generator=generator), 3 * torch.randn(
        rows, QUERIES, SIDE, SIDE, generator=generator
    )


def targets(counts: tuple[int, ...] = COUNTS, side: int = SIDE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(count, side, side, generator=generator) > 0.6 for count in counts]


def padded(masks: list[Tensor]) -> Tensor:
    out = torch.zeros(len(masks), max(map(len, masks)), *masks[0].shape[1:])
    for row, some in zip(out, masks, strict=True):
        row[: len(some)] = some
    return out


def pairs(matches: Matches) -> list[tuple[int, int, int]]:
    return list(zip(matches.rows.tolist(), matches.queries.tolist(), matches.targets.tolist(), strict=True))


def match(loss: SetLoss, scores: Tensor, masks: Tensor, truth: list[Tensor]) -> list[tuple[int, int, int]]:
    return pairs(loss.match(scores, masks, padded(truth), [len(t) for t in truth]))


def test_costs_equal_transformers() -> None:
    scores, masks = predictions()
    truth = targets((3, 3, 3))
    found = SetLoss(points=None, class_cost=0.0, mask_cost=2.0, dice_cost=3.0).costs(scores, masks, padded(truth))
    for row in range(ROWS):
        logits, labels = masks[row].flatten(1), truth[row].flatten(1).float()
        expected = 2 * theirs.pair_wise_sigmoid_cross_entropy_loss(logits, labels)
        expected = expected + 3 * theirs.pair_wise_dice_loss(logits, labels)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)
    with_class = SetLoss(points=None, class_cost=2.0, mask_cost=2.0, dice_cost=3.0).costs(scores, masks, padded(truth))
    torch.testing.assert_close(found - with_class, 2 * scores.sigmoid()[:, :, None].expand_as(found))


@pytest.mark.parametrize("count", [1, 4])
def test_points_matching_and_mask_losses_equal_transformers(count: int) -> None:
    """One row with the same seed draws the same points, see `Mask2FormerLoss.sample_points_using_uncertainty`."""
    scores, masks = predictions(1)
    truth = targets((count,), 32)
    config = Mask2FormerConfig(
        class_weight=0.0, mask_weight=5.0, dice_weight=5.0, train_num_points=50, oversample_ratio=3.0,
        importance_sample_ratio=0.75, num_labels=1,
    )  # fmt: skip
    torch.manual_seed(7)
    classes = torch.stack([scores, -scores], -1)
    labels = torch.zeros(count, dtype=torch.int64)
    expected = theirs.Mask2FormerLoss(config, {})(masks, classes, [truth[0].float()], [labels])
    torch.manual_seed(7)
    found = SetLoss(points=50, mask_weight=1.0, dice_weight=1.0)([scores], [masks], truth)
    torch.testing.assert_close(found["mask"], expected["loss_mask"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["dice"], expected["loss_dice"], atol=1e-5, rtol=1e-5)


def test_losses_equal_the_formulas() -> None:
    """Losses of InstructSeg's code for given pairs (issue 21, specification 1.8), in float64."""
    scores, masks = predictions()
    truth = targets()
    chosen = match(EXACT, scores, masks, truth)
    number, total = sum(COUNTS), ROWS * QUERIES
    positive = torch.zeros(ROWS, QUERIES, dtype=torch.float64)
    entropy, dice = 0.0, 0.0
    for row, query, target in chosen:
        positive[row, query] = 1
        p, t = masks[row, query].double().sigmoid(), truth[row][target].double()
        entropy += float(-(t * p.log() + (1 - t) * (1 - p).log()).mean())
        dice += float(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    q = scores.double().sigmoid()
    weight = (total - number) / number
    classes = -(weight * positive * q.log() + (1 - positive) * (1 - q).log()).mean()
    found = EXACT([scores], [masks], truth)
    assert float(found["class"]) == pytest.approx(2 * float(classes), rel=1e-5)
    assert float(found["mask"]) == pytest.approx(5 * entropy / number, rel=1e-5)
    assert float(found["dice"]) == pytest.approx(5 * dice / number, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(float(found["class"] + found["mask"] + found["dice"]), rel=1e-6)
    paper = SetLoss(1.0, 1.0, 1.0, points=None)([scores], [masks], truth)
    assert float(paper["class"]) == pytest.approx(float(found["class"]) / 2, rel=1e-6)
    assert float(paper["mask"]) == pytest.approx(float(found["mask"]) / 5, rel=1e-6)


def test_the_assignment_is_the_cheapest() -> None:
    scores, masks = predictions()
    truth = targets()
    costs = EXACT.costs(scores, masks, padded(truth))
    chosen = match(EXACT, scores, masks, truth)
    assert [sum(row == k for row, _, _ in chosen) for k in range(ROWS)] == list(COUNTS)
    for row, count in enumerate(COUNTS):
        best = min(
            sum(float(costs[row, q, t]) for t, q in enumerate(order)) for order in permutations(range(QUERIES), count)
        )
        assert sum(float(costs[row, q, t]) for r, q, t in chosen if r == row) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_permuting_queries_permutes_the_assignment(seed: int) -> None:
    scores, masks = predictions(seed=seed)
    truth = targets()
    torch.manual_seed(seed)
    order = torch.randperm(QUERIES)
    loss = SetLoss(points=None, class_cost=2.0)
    moved = match(loss, scores[:, order], masks[:, order], truth)
    assert {(row, int(order[q]), t) for row, q, t in moved} == set(match(loss, scores, masks, truth))
    torch.testing.assert_close(
        loss([scores[:, order]], [masks[:, order]], truth), loss([scores], [masks], truth), rtol=1e-5, atol=1e-6
    )


def test_scores_do_not_change_the_assignment_without_class_cost() -> None:
    scores, masks = predictions()
    truth = targets()
    assert match(EXACT, scores, masks, truth) == match(EXACT, -5 * scores, masks, truth)
    dear = SetLoss(points=None, class_cost=1e4)
    assert match(dear, scores, masks, truth) != match(dear, -scores, masks, truth)


def test_positive_weight_of_four_rows_of_100_queries_is_99() -> None:
    """Specification 1.14: B = 4, one mask each: (400 - 4) / 4."""
    masks = torch.full((4, 100, 2, 2), -9.0)
    masks[:, 7] = 9.0
    truth = [torch.ones(1, 2, 2, dtype=torch.bool)] * 4
    scores = torch.zeros(4, 100)
    # All logits 0: each negative costs log 2, each positive 99 log 2.
    expected = 2 * (396 + 4 * 99) / 400 * torch.tensor(2.0).log()
    torch.testing.assert_close(EXACT([scores], [masks], truth)["class"], expected)


def test_every_prediction_is_matched_anew_and_counts() -> None:
    first, second = predictions(), predictions(seed=1)
    truth = targets()
    both = EXACT([first[0], second[0]], [first[1], second[1]], truth)
    alone = [EXACT([s], [m], truth) for s, m in (first, second)]
    for name, value in both.items():
        torch.testing.assert_close(value, alone[0][name] + alone[1][name])
    assert match(EXACT, *first, truth) != match(EXACT, *second, truth)


@pytest.mark.parametrize("points", [None, 20])
def test_rows_without_targets_push_all_scores_down(points: int | None) -> None:
    scores, masks = (t.requires_grad_() for t in predictions())
    found = SetLoss(points=points)([scores], [masks], targets((0, 0, 0)))
    assert float(found["mask"]) == float(found["dice"]) == 0
    found["loss"].backward()
    assert scores.grad is not None and (scores.grad > 0).all()
    assert masks.grad is not None and not masks.grad.any()


@pytest.mark.parametrize("points", [None, 20])
def test_more_targets_than_queries(points: int | None) -> None:
    scores, masks = predictions()
    found = SetLoss(points=points)([scores], [masks], targets((2, QUERIES + 3, 1)))
    assert all(torch.isfinite(v) for v in found.values())
    assert len(match(EXACT, scores, masks, targets((2, QUERIES + 3, 1)))) == 2 + QUERIES + 1


def test_larger_targets_are_averaged_over_cells_without_points() -> None:
    scores, masks = predictions()
    truth = targets()
    large = [t.repeat_interleave(4, 1).repeat_interleave(4, 2) for t in truth]
    torch.testing.assert_close(EXACT([scores], [masks], large), EXACT([scores], [masks], truth))


def test_logits_in_half_precision_are_compared_in_float32() -> None:
    scores, masks = (t.bfloat16() for t in predictions())
    found = EXACT([scores], [masks], targets())
    assert all(v.dtype == torch.float32 for v in found.values())
    torch.testing.assert_close(found, EXACT([scores.float()], [masks.float()], targets()))


def test_masks_that_are_not_finite_are_matched_last() -> None:
    scores, masks = predictions()
    masks[:, 0] = torch.nan
    assert all(query != 0 for _, query, _ in match(EXACT, scores, masks, targets()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"points": 0}, "points must be at least 1 or None, got 0"), ({"importance": 1.5}, "0 <= importance <= 1")],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SetLoss(**settings)


def test_targets_of_other_rows_are_refused() -> None:
    scores, masks = predictions()
    with pytest.raises(ValueError, match="targets of 2 rows for 3 rows of scores"):
        EXACT([scores], [masks], targets((1, 1)))
