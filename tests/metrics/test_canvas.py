import numpy as np
import pytest
import torch

from maskselect.metrics.canvas import canvas_pixels, letterbox, stretch
from maskselect.ops.masks import resize_nearest
from tests.metrics import references as ref

# 640 x 480 and its like are what COCO's images have, and where Pillow's centres fall between two pixels.
SIZES = [(480, 640), (640, 427), (800, 800), (1024, 158), (1, 1), (1, 300), (3, 1000)]


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
        expected = resize_nearest(masks, (side, side)).sum((1, 2))
        assert torch.equal(canvas_pixels(masks, side), expected), size


def test_no_mask_stays_no_mask() -> None:
    none = torch.zeros(0, 5, 7, dtype=torch.bool)
    assert letterbox(none, 8).shape == stretch(none, 8).shape == (0, 8, 8)
    assert canvas_pixels(none, 8).shape == (0,)
