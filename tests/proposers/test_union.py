"""Pools joined: what two proposers found is there once, in the order and of the sizes that were asked for."""

from typing import Any

import numpy as np
import pytest
import torch

from maskselect.proposers.union import UnionProposer
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer

IMAGE = np.zeros((10, 20, 3), np.uint8)


def square(x: int, side: int = 4) -> torch.Tensor:
    mask = torch.zeros(10, 20, dtype=torch.bool)
    mask[:side, x : x + side] = True
    return mask


class Given:
    """Proposes what it was given."""

    def __init__(self, name: str, *masks: torch.Tensor, scores: list[float] | None = None) -> None:
        stack = torch.stack(masks) if masks else torch.zeros(0, 10, 20, dtype=torch.bool)
        self.found = MaskSet(stack, torch.tensor(scores or [0.5] * len(masks)), name, {"own": torch.zeros(len(masks))})

    def propose(self, image: np.ndarray) -> MaskSet:
        return self.found


class Prompted(Given):
    def segment_box(self, image: np.ndarray, box_xyxy: Any) -> torch.Tensor:
        return square(0)

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: torch.Tensor) -> MaskSet:
        return self.found

    def segment_point(self, image: np.ndarray, point_xy: Any) -> torch.Tensor:
        return square(1)


FIRST = Given("a", square(0), square(10, 2), scores=[0.2, 0.9])
SECOND = Given("b", square(0), square(6), square(10, 8), scores=[0.99, 0.4, 0.3])


def test_what_two_found_is_there_once_and_the_first_ones() -> None:
    found = UnionProposer([FIRST, SECOND]).propose(IMAGE)
    assert found.columns["proposer"].tolist() == [0, 0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.2, 0.9, 0.4, 0.3])  # not the second's 0.99
    assert found.source == "a+b" and "own" in found.columns
    assert torch.equal(found.masks[2], square(6))
    assert len(UnionProposer([FIRST, SECOND], nms_iou=1).propose(IMAGE)) == 5


def test_within_one_proposer_the_better_scored_stays() -> None:
    twice = Given("a", square(0), square(0), scores=[0.1, 0.8])
    assert UnionProposer([twice]).propose(IMAGE).scores.tolist() == pytest.approx([0.8])


def test_order_sizes_and_number() -> None:
    by_score = UnionProposer([FIRST, SECOND], order="score").propose(IMAGE)
    assert by_score.scores.tolist() == pytest.approx([0.9, 0.4, 0.3, 0.2])
    by_area = UnionProposer([FIRST, SECOND], order="area", max_candidates=2).propose(IMAGE)
    assert by_area.masks.sum((1, 2)).tolist() == [64, 16]
    fair = UnionProposer([FIRST, SECOND], least_area=0.05, most_area=0.2).propose(IMAGE)
    assert fair.masks.sum((1, 2)).tolist() == [16, 16]


def test_nothing_is_nothing() -> None:
    assert len(UnionProposer([Given("a"), Given("b")]).propose(IMAGE)) == 0
    assert len(UnionProposer([Given("a"), SECOND]).propose(IMAGE)) == 3


def test_boxes_and_points_go_to_the_first_that_takes_them() -> None:
    union = UnionProposer([FIRST, Prompted("p", square(3))])
    assert isinstance(union, PromptableProposer)
    assert torch.equal(union.segment_box(IMAGE, (0, 0, 4, 4)), square(0))
    assert torch.equal(union.segment_point(IMAGE, (2, 2)), square(1))
    assert len(union.segment_boxes(IMAGE, torch.zeros(1, 4))) == 1
    with pytest.raises(ValueError, match="none of Given, Given can turn a box"):
        UnionProposer([FIRST, SECOND]).segment_box(IMAGE, (0, 0, 4, 4))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"proposers": []}, "proposers is empty"),
        ({"nms_iou": 0.0}, "expected 0 < nms_iou <= 1"),
        ({"least_area": 0.5, "most_area": 0.2}, "least_area <= most_area"),
        ({"max_candidates": 0}, "max_candidates must be at least 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        UnionProposer(**({"proposers": [FIRST]} | settings))
