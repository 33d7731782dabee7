"""Outlines along the edges of pixels, drawn again by pycocotools, whose rule of filling COCO's polygons have."""

import numpy as np
import pytest
from pycocotools import mask as coco

from maskselect.ops.outlines import Part, joined, outlines


def filled(rings: Part, size: tuple[int, int]) -> np.ndarray:
    """By pycocotools, (H, W) bool; each ring is a polygon of its own."""
    codes = coco.frPyObjects([[float(value) for value in ring.ravel()] for ring in rings], *size)
    return np.asarray(coco.decode(coco.merge(codes)).astype(bool))


def drawn(text: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in text.split()])


RING = drawn("###### #....# #.##.# #....# ######")
CASES = {
    "pixel": (drawn("... .#. ..."), [[4]]),
    "full": (np.ones((3, 5), bool), [[4]]),
    "hole and island": (RING, [[4, 4], [4]]),
    "touching corners": (drawn("#. .#"), [[8]]),
    "two holes at one corner": (drawn("#### #.## ##.# ####"), [[4, 4, 4]]),
    "step": (drawn("#.. ##. ###"), [[8]]),
    "parts": (drawn("#.# ... #.."), [[4], [4], [4]]),
}


@pytest.mark.parametrize("name", CASES)
def test_rings_and_corners(name: str) -> None:
    mask, expected = CASES[name]
    parts = outlines(mask)
    assert [[len(ring) for ring in part] for part in parts] == expected
    assert np.array_equal(filled([joined(part) for part in parts], mask.shape), mask)


def test_a_pixel_is_a_square_and_nothing_is_nothing() -> None:
    ((ring,),) = outlines(CASES["pixel"][0])
    assert sorted(ring.tolist()) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert outlines(np.zeros((4, 4), bool)) == []


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("tolerance", [0, 0.3])
def test_noise_comes_back_exactly(share: float, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        height, width = rng.integers(1, 30, 2)
        mask = rng.random((height, width)) < share
        if not mask.any():
            continue
        parts = outlines(mask, tolerance)
        assert np.array_equal(filled([joined(part) for part in parts], mask.shape), mask)
        alone = joined([ring for part in parts for ring in part])
        assert np.array_equal(filled([alone], mask.shape), mask)


def test_a_tolerance_saves_corners() -> None:
    rows, columns = np.ogrid[:80, :80]
    disc = (rows - 40) ** 2 + (columns - 38) ** 2 < 900
    ((exact,),), ((fewer,),) = outlines(disc), outlines(disc, 0.5)
    again = filled([fewer], disc.shape)
    assert len(fewer) < len(exact) / 3
    assert (again & disc).sum() / (again | disc).sum() > 0.97
    ((pixel,),) = outlines(CASES["pixel"][0], 5)
    assert len(pixel) == 4  # nothing would be left
