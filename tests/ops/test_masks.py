"""Counting, boxing and resizing masks, against NumPy and torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.masks import (
    area,
    binary,
    filled,
    mean_inside,
    not_empty,
    resize_nearest,
    resize_smooth,
    unpadded_logits,
)

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


# Resizing.
def line(size: tuple[int, int], across: bool) -> torch.Tensor:
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[0, size[0] // 3] = across
    mask[0, :, size[1] // 3] |= not across
    return mask


@given(SIZES, SIZES, st.integers(0, 1000), st.floats(0, 1))
def test_no_resize_loses_a_mask(
    size: tuple[int, int, int], other: tuple[int, int, int], seed: int, share: float
) -> None:
    masks = torch.from_numpy(np.random.default_rng(seed).random(size) < share)
    plain = F.interpolate(masks[:, None].to(torch.uint8), size=other[1:], mode="nearest-exact")[:, 0].bool()
    found = resize_nearest(masks, other[1:])
    assert found.shape == (len(masks), *other[1:]) and not_empty(found).tolist() == not_empty(masks).tolist()
    assert torch.equal(found[not_empty(plain)], plain[not_empty(plain)])  # what was there before is as it was
    smooth = [resize_smooth(mask.numpy(), other[1:]) for mask in masks]
    assert [bool(mask.any()) for mask in smooth] == not_empty(masks).tolist()


@pytest.mark.parametrize("size", [(3000, 4000), (2500, 1100)])
def test_small_references_in_large_pictures_stay_where_they_are(size: tuple[int, int]) -> None:
    working = (round(size[0] * 1024 / max(size)), round(size[1] * 1024 / max(size)))
    for y, x, side in ((0, 0, 1), (size[0] - 1, size[1] - 1, 1), (1001, 777, 1), (1234, 99, 2)):
        mask = torch.zeros(1, *size, dtype=torch.bool)
        mask[0, y : y + side, x : x + side] = True
        rows, columns = resize_nearest(mask, working)[0].nonzero().T
        assert 1 <= len(rows) <= 4
        assert abs(float(rows.float().mean()) - y * working[0] / size[0]) <= 1.5
        assert abs(float(columns.float().mean()) - x * working[1] / size[1]) <= 1.5
    for across in (True, False):
        thin = resize_nearest(line(size, across), working)[0]
        assert int(thin.any(0).sum()) == (working[1] if across else 1)
        assert int(thin.any(1).sum()) == (1 if across else working[0])


def test_a_smooth_resize_has_no_stairs_and_is_a_copy() -> None:
    disc = ((np.indices((40, 40)) - 19.5) ** 2).sum(0) < 15**2
    large = resize_smooth(disc, (160, 160))
    wanted = ((np.indices((160, 160)) - 79.5) ** 2).sum(0) < 60**2
    assert (large != wanted).mean() < (
        resize_nearest(torch.from_numpy(disc)[None], (160, 160))[0].numpy() != wanted
    ).mean()
    same = resize_smooth(disc, (40, 40))
    assert np.array_equal(same, disc) and not np.shares_memory(same, disc)


def test_binary_masks_are_copies() -> None:
    given_mask = np.array([[True, False]])
    assert not np.shares_memory(binary(given_mask, "mask"), given_mask)
    assert binary(np.array([[0, 255, 0]], np.uint8)[:, ::2], "mask").tolist() == [[False, False]]


def test_logits_of_a_padded_square_come_back_at_the_pictures_size() -> None:
    """Mask2Former: to the side of the input, crop, to the picture; a left half stays the left half."""
    logits = torch.full((2, 8, 8), -5.0)
    logits[0, :, :4] = 5.0  # left half of a picture that fills the upper 3/4 of the square
    found = unpadded_logits(logits, 32, (24, 32), (30, 40))
    assert found.shape == (2, 30, 40)
    assert (found[0, :, :18] > 0).all() and (found[0, :, 22:] < 0).all()
    logits[0, 6:] = 50.0  # the padding does not count
    again = unpadded_logits(logits, 32, (24, 32), (30, 40))
    assert torch.equal(again[:, :26], found[:, :26])


def test_mean_probability_inside_a_mask() -> None:
    logits = torch.tensor([[[2.0, -9.0], [1.0, -1.0]], [[-1.0, -2.0], [-3.0, -4.0]]])
    expected = (torch.tensor(2.0).sigmoid() + torch.tensor(1.0).sigmoid()) / (2 + 1e-6)
    torch.testing.assert_close(mean_inside(logits), torch.stack([expected, torch.tensor(0.0)]))
