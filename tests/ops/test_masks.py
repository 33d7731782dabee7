"""Counting and boxing masks, against NumPy."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.masks import area, filled, not_empty

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))


@given(SIZES, st.integers(0, 1000), st.floats(0, 1))
def test_counts_and_extents_are_numpys(size: tuple[int, int, int], seed: int, share: float) -> None:
    given_masks = np.random.default_rng(seed).random(size) < share
    masks = torch.from_numpy(given_masks)
    assert area(masks).tolist() == given_masks.sum((1, 2)).tolist()
    assert not_empty(masks).tolist() == given_masks.any((1, 2)).tolist()
    for dim in range(3):
        assert filled(masks, dim).tolist() == given_masks.any(dim).tolist()
    for box, mask in zip(masks_to_boxes_xyxy(masks).tolist(), given_masks, strict=True):
        rows, columns = np.nonzero(mask)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert box == expected


def test_views_that_are_not_contiguous_are_counted_too() -> None:
    masks = torch.rand(4, 8, 10) < 0.5
    turned = masks.transpose(1, 2)[:, 1:7]
    assert area(turned).tolist() == [float(m.sum()) for m in turned]
    assert torch.equal(masks_to_boxes_xyxy(turned), masks_to_boxes_xyxy(turned.contiguous()))


def test_no_mask_at_all() -> None:
    none = torch.zeros(0, 4, 5, dtype=torch.bool)
    assert area(none).shape == not_empty(none).shape == (0,)
    assert not_empty(none).dtype == torch.bool
    assert not_empty(torch.zeros(3, 0, 5, dtype=torch.bool)).tolist() == [False] * 3
