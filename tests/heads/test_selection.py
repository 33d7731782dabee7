"""The group: chosen candidates that are not empty, without duplicates, by falling score."""

import pytest
import torch
from torch import Tensor

from maskselect.heads.selection import select

SCORES = torch.tensor([0.6, 0.9, 0.8, 0.7, 0.95])


def masks() -> Tensor:
    """Two that share 9 of 11 pixels (IoU 0.818), one apart, an empty one, and one that is not chosen."""
    out = torch.zeros(5, 4, 20, dtype=torch.bool)
    out[0, 0, :10] = True
    out[1, 0, 1:11] = True
    out[2, 2, :5] = True
    out[4, 3] = True
    return out


CHOSEN = torch.tensor([True, True, True, True, False])


@pytest.mark.parametrize(
    ("duplicates_iou", "group"), [(None, [1, 2, 0]), (0.5, [1, 2]), (0.81, [1, 2]), (0.82, [1, 2, 0]), (1.0, [1, 2, 0])]
)
def test_of_duplicates_the_better_one_stays(duplicates_iou: float | None, group: list[int]) -> None:
    assert select(masks(), SCORES, CHOSEN, duplicates_iou).tolist() == group


def test_an_iou_equal_to_the_limit_is_no_duplicate() -> None:
    half = torch.zeros(2, 1, 4, dtype=torch.bool)
    half[0, 0, :4] = half[1, 0, :2] = True  # IoU 0.5
    assert select(half, torch.tensor([0.9, 0.8]), torch.ones(2, dtype=torch.bool), 0.5).tolist() == [0, 1]


def test_equal_scores_keep_the_order_of_the_pool() -> None:
    apart = torch.eye(4, dtype=torch.bool)[:, None]
    scores, chosen = torch.tensor([0.5, 0.7, 0.5, 0.7]), torch.ones(4, dtype=torch.bool)
    assert select(apart, scores, chosen, 0.5).tolist() == [1, 3, 0, 2]


def test_nothing_chosen() -> None:
    assert select(masks(), SCORES, torch.zeros(5, dtype=torch.bool), 0.5).tolist() == []
