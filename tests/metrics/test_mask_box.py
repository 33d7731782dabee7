import math

import numpy as np
import torch
from torchvision.ops import masks_to_boxes

from maskselect.metrics.mask_box import index_box, index_box_iou, is_hit
from tests.metrics import references as ref
from tests.metrics.grids import CORNER, DOT, EMPTY, FULL, LEFT, grid


def test_a_single_pixel_is_a_box_without_area() -> None:
    assert index_box(DOT) == (0, 0, 0, 0)
    assert math.isnan(index_box_iou(index_box(DOT), index_box(DOT)))
    assert not is_hit(DOT, DOT)
    assert index_box_iou(index_box(DOT), index_box(FULL)) == 0.0


def test_ends_are_the_last_pixels() -> None:
    assert index_box(grid("....", ".##.", ".##.", "....")) == (1, 1, 2, 2)
    assert index_box_iou(index_box(CORNER), index_box(FULL)) == 1 / 9  # 1 x 1 within 3 x 3


def test_nothing_is_never_a_hit() -> None:
    assert index_box(EMPTY) is None
    assert not is_hit(EMPTY, FULL)
    assert not is_hit(FULL, EMPTY)
    assert not is_hit(EMPTY, EMPTY)


def test_half_is_not_enough() -> None:
    wide, half = (torch.zeros(9, 9, dtype=torch.bool) for _ in range(2))
    wide[0:9, 0:9], half[0:9, 0:5] = True, True  # 8 x 8 and 8 x 4 between their pixels
    assert index_box_iou(index_box(half), index_box(wide)) == 0.5
    assert not is_hit(half, wide)
    assert is_hit(wide, wide)
    assert not is_hit(LEFT, FULL)


def test_agrees_with_torchvision() -> None:
    rng = np.random.default_rng(2)
    for _ in range(1000):
        size = int(rng.integers(1, 30)), int(rng.integers(1, 30))
        a, b = ref.draw_mask(rng, size), ref.draw_mask(rng, size)
        if a.any():
            assert index_box(torch.from_numpy(a)) == tuple(masks_to_boxes(torch.from_numpy(a)[None])[0].int().tolist())
        assert is_hit(torch.from_numpy(a), torch.from_numpy(b)) == bool(ref.is_hit(a, b))
