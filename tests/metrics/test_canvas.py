import numpy as np
import pytest
import torch

from maskselect.metrics.canvas import canvas_pixels, letterbox, stretch, stretch_floor
from tests.metrics import references as ref

# 640 x 480 and its like are what COCO's images have, and where Pillow's centres fall between two pixels.
# Of 49, 98 and 107 a scale of 1024 / size gives 1023 when it is multiplied back and rounded down.
SIZES = [(480, 640), (640, 427), (800, 800), (1024, 158), (1, 1), (1, 300), (3, 1000), (49, 20), (98, 98), (60, 107)]


def noise(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(size) < 0.5


def random_sizes(count: int) -> list[tuple[int, int]]:
    return [(int(h), int(w)) for h, w in np.random.default_rng(4).integers(1, 700, (count, 2))]


@pytest.mark.parametrize("side", [480, 1024])
def test_stretch_is_pillow(side: int) -> None:
    for number, size in enumerate([*SIZES, *random_sizes(20)]):
        mask = noise(size, number)
        assert np.array_equal(stretch(torch.from_numpy(mask[None]), side)[0].numpy(), ref.stretched(mask, side)), size


@pytest.mark.parametrize("side", [64, 1024])
def test_letterbox_is_opencv(side: int) -> None:
    for number, size in enumerate([*SIZES, *random_sizes(20)]):
        mask = noise(size, number)
        ours = letterbox(torch.from_numpy(mask[None]), side)[0].numpy()
        assert np.array_equal(ours, ref.letterboxed(mask, side)), size


@pytest.mark.parametrize("side", [7, 480, 1024])
def test_pixels_on_the_canvas_are_those_of_resizing(side: int) -> None:
    for number, size in enumerate([*SIZES, *random_sizes(20)]):
        masks = torch.from_numpy(np.stack([noise(size, number), noise(size, number + 1)]))
        assert torch.equal(canvas_pixels(masks, side), stretch_floor(masks, side).sum((1, 2))), size


def test_stretching_by_the_lower_index_is_torchs_nearest() -> None:
    for number, size in enumerate([*SIZES, *random_sizes(20)]):
        mask = noise(size, number)
        ours = stretch_floor(torch.from_numpy(mask[None]), 1024)[0].numpy()
        assert np.array_equal(ours, ref.floored(mask, 1024)), size


def test_three_pixels_on_a_canvas_of_1024() -> None:
    line = torch.tensor([[[True, False, False]]])
    assert int(stretch_floor(line, 1024)[0, 0].sum()) == 342  # places 0 to 341: floor(341 * 3 / 1024) is 0
    assert int(stretch(line, 1024)[0, 0].sum()) == 341


def test_the_longer_side_fills_the_canvas_whatever_its_size() -> None:
    for size in range(1, 5000):
        if int(size * (1024 / size)) < 1024:
            wide = letterbox(torch.ones(1, 1, size, dtype=torch.bool), 1024)[0]
            tall = letterbox(torch.ones(1, size, 1, dtype=torch.bool), 1024)[0]
            assert bool(wide.any(0).all()) and bool(tall.any(1).all()), size


def test_no_mask_stays_no_mask() -> None:
    none = torch.zeros(0, 5, 7, dtype=torch.bool)
    assert letterbox(none, 8).shape == stretch(none, 8).shape == stretch_floor(none, 8).shape == (0, 8, 8)
    assert canvas_pixels(none, 8).shape == (0,)
