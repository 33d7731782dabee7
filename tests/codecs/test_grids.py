"""Masks to the grid of a codec and back, against Pillow and against counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskselect.codecs.grids import coverage, label_map, nearest_indices, to_grid, upsample

SIDES = st.integers(1, 400)


def test_vectors() -> None:
    assert nearest_indices(10, 6).tolist() == [0, 2, 4, 5, 7, 9]
    assert nearest_indices(8, 16).tolist() == [n // 2 for n in range(16)]


@given(SIDES, SIDES, st.sampled_from([(6, 6), (16, 16), (24, 24), (32, 48), (64, 64), (80, 5)]), st.integers(0, 99))
def test_nearest_is_pillows(height: int, width: int, grid: tuple[int, int], seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    expected = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(grid[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(to_grid(mask[None], grid, "nearest", False)[0], expected > 0)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_coverage_counts_pixels(height: int, width: int, scale: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((1, height * scale, width * scale)) < 0.5
    blocks = mask.reshape(height, scale, width, scale).mean((1, 3))
    assert np.allclose(coverage(mask, (height, width))[0], blocks, atol=1e-5)
    assert np.array_equal(to_grid(mask, (height, width), "area", False)[0], blocks > 0.5)
    assert np.array_equal(to_grid(mask, (height, width), "any", False)[0], blocks > 0)
    fine = coverage(mask, (height * scale * 3, width * scale * 2))[0]
    assert np.allclose(fine, mask[0].repeat(3, 0).repeat(2, 1), atol=1e-4)


def test_the_largest_share_wins() -> None:
    masks = np.zeros((2, 1, 10), bool)
    masks[0, 0, :4], masks[1, 0, 4:7] = True, True
    assert label_map(masks, (1, 1), "area", False).tolist() == [[1]]  # 4 pixels, 3 pixels, 3 of `others`
    assert not to_grid(masks, (1, 1), "area", False).any()
    assert label_map(masks[1:], (1, 1), "area", False).tolist() == [[0]]
    masks[1, 0, :7] = True
    assert label_map(masks, (1, 1), "area", False).tolist() == [[2]]  # the later one wins where both are


@pytest.mark.parametrize("sampling", ["nearest", "area"])
def test_small_masks(sampling: str) -> None:
    masks = np.zeros((2, 90, 90), bool)
    masks[0, 20, 80] = True
    masks[1, 40:50, 40:50] = True
    assert not (label_map(masks, (3, 3), sampling, False) == 1).any()  # type: ignore[arg-type]
    kept = label_map(masks, (3, 3), sampling, True)  # type: ignore[arg-type]
    assert kept[0, 2] == 1 and kept[1, 1] == 2 and np.count_nonzero(kept) == 2


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 60), st.integers(1, 60))
def test_upsampling_reads_the_floor(h: int, w: int, height: int, width: int) -> None:
    cells = np.arange(h * w).reshape(h, w)
    found = upsample(cells, (height, width))
    assert all(found[y, x] == cells[y * h // height, x * w // width] for y in range(height) for x in range(width))
    assert np.array_equal(upsample(cells, (h, w)), cells)
