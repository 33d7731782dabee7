"""Grids, crops and small regions: those of the `segment_anything` package."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils import amg
from segment_anything.utils.transforms import ResizeLongestSide

from maskselect.proposers import sam_grid
from maskselect.proposers.everything import longest_side

SIDES = st.integers(1, 300)


@settings(deadline=None)
@given(side=st.integers(4, 33), layers=st.integers(0, 2), downscale=st.sampled_from([1, 2]))
def test_points_are_the_packages(side: int, layers: int, downscale: int) -> None:
    ours, theirs = (of(side, layers, downscale) for of in (sam_grid.point_grids, amg.build_all_layer_point_grids))
    assert len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@settings(deadline=None)
@given(size=st.tuples(SIDES, SIDES), layers=st.integers(0, 3), ratio=st.sampled_from([0.0, 512 / 1500, 0.5]))
def test_crops_are_the_packages(size: tuple[int, int], layers: int, ratio: float) -> None:
    assert sam_grid.crop_boxes(size, layers, ratio) == amg.generate_crop_boxes(size, layers, ratio)


@settings(deadline=None)
@given(size=st.tuples(SIDES, SIDES), seed=st.integers(0, 1000))
def test_boxes_at_an_edge_are_the_packages(size: tuple[int, int], seed: int) -> None:
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    boxes = (torch.rand(50, 4, generator=generator) * torch.tensor([width, height, width, height])).round()
    for crop in amg.generate_crop_boxes(size, 2, 0.3)[0]:
        expected = amg.is_box_near_crop_edge(boxes, crop, [0, 0, width, height])
        assert torch.equal(sam_grid.at_crop_edge(boxes, crop, size), expected)


@settings(deadline=None)
@given(size=st.tuples(st.integers(1, 30), st.integers(1, 30)), share=st.floats(0, 1), area=st.integers(0, 40))
@pytest.mark.parametrize("mode", ["holes", "islands"])
def test_small_regions_are_the_packages(
    mode: Literal["holes", "islands"], size: tuple[int, int], share: float, area: int
) -> None:
    mask = np.random.default_rng(area).random(size) < share
    ours, theirs = sam_grid.remove_small_regions(mask, area, mode), amg.remove_small_regions(mask, area, mode)
    assert np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]


@given(size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)), side=st.sampled_from([256, 1024]))
def test_sizes_are_the_packages(size: tuple[int, int], side: int) -> None:
    expected = ResizeLongestSide.get_preprocess_shape(*size, side)
    assert longest_side(size, side) == tuple(max(length, 1) for length in expected)
