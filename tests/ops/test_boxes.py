"""Suppression by boxes: torchvision's own choice, in its order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from maskselect.ops.boxes import box_nms


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(0, 40),
    whole=st.booleans(),
    levels=st.sampled_from([2, 5, 1000]),
    threshold=st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.7, 0.95, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_it_is_torchvisions(count: int, whole: bool, levels: int, threshold: float, seed: int) -> None:
    """With boxes without extent, equal boxes, and equal scores, which keep their order."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * 10
    corners = corners.round() if whole else corners
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    scores = torch.randint(levels, (count,), generator=generator) / levels
    assert box_nms(boxes, scores, threshold).tolist() == nms(boxes, scores, threshold).tolist()


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_an_iou_at_the_threshold_is_judged_with_all_digits(threshold: float) -> None:
    """float32 cannot hold these thresholds: 0.1 is rounded up, 0.7 down."""
    wide = torch.tensor([[0.0, 0, 1000, 10]])
    others = torch.stack([torch.tensor([0.0, 0, 1000 * threshold + step, 10]) for step in (-0.001, 0, 0.001)])
    for other in others:
        boxes, scores = torch.cat([wide, other[None]]), torch.tensor([1.0, 0.5])
        assert box_nms(boxes, scores, threshold).tolist() == nms(boxes, scores, threshold).tolist()
