"""Outlines and crops for networks, on pictures whose pixels are known."""

import numpy as np

from maskselect.ops.marking import isolated, outlined, scaled, scaled_down, window_of

RED = (255, 0, 0)


def mask_of(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


def test_outlines_lie_at_the_edge_and_leave_the_image_as_it_is() -> None:
    image = np.full((60, 80, 3), 90, np.uint8)
    drawn = outlined(image, [(mask_of(60, 80, slice(20, 40), slice(30, 60)), RED, 1)])
    assert (image == 90).all()
    red = (drawn == RED).all(-1)
    assert red[20, 45] and red[30, 30] and not red[30, 45] and not red[10, 45]
    wide = (outlined(image, [(mask_of(60, 80, slice(20, 40), slice(30, 60)), RED, 2)]) == RED).all(-1)
    assert (wide & red).sum() == red.sum() < wide.sum()
    large = outlined(image, [(mask_of(120, 160, slice(40, 80), slice(60, 120)), RED, 1)])  # of the original size
    assert ((large == RED).all(-1) == red).mean() > 0.98


def test_windows_stay_inside_the_picture() -> None:
    assert window_of(mask_of(60, 80, slice(20, 30), slice(30, 50)), 0.1) == (28, 18, 52, 32)
    assert window_of(mask_of(60, 80, slice(0, 60), slice(70, 80)), 0.5) == (40, 0, 80, 60)
    assert window_of(mask_of(1, 1, slice(0, 1), slice(0, 1)), 0.3) == (0, 0, 1, 1)


def test_isolated_regions_are_on_grey() -> None:
    image = np.random.default_rng(0).integers(200, 255, (20, 30, 3), np.uint8)
    mask = mask_of(20, 30, slice(5, 10), slice(5, 15))
    mask[5, 5] = False
    part = isolated(image, mask)
    assert part.shape == (5, 10, 3) and part[0, 0].tolist() == [128] * 3
    np.testing.assert_array_equal(part[1:], image[6:10, 5:15])
    assert (image >= 200).all()


def test_scaling_keeps_the_aspect() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    assert scaled(image, 40).shape == (30, 40, 3) and scaled(image, 160).shape == (120, 160, 3)
    assert scaled_down(image, 80) is image and scaled_down(image, 8).shape == (6, 8, 3)
    assert scaled(np.zeros((1, 200, 3), np.uint8), 20).shape == (1, 20, 3)
