import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskselect.metrics.boundary import boundary_f, boundary_map, outline, outline_f, tolerance_radius
from tests.metrics import references as ref
from tests.metrics import video_references as video
from tests.metrics.grids import CORNER, DOT, EMPTY, FULL, grid


def test_boundaries_by_hand() -> None:
    lower_right = grid("....", "....", "..##", "..##")
    cases = {
        CORNER: [".#..", "##..", "....", "...."],
        DOT: ["#...", "....", "....", "...."],
        lower_right: ["....", ".###", ".#..", ".#.."],
    }
    for mask, rows in cases.items():
        assert boundary_map(mask.numpy()).tolist() == grid(*rows).tolist()


def test_the_lower_right_pixel_is_no_boundary() -> None:
    alone = grid("....", "....", "....", "...#")
    assert boundary_map(alone.numpy()).tolist() == grid("....", "....", "..##", "..#.").tolist()
    assert not boundary_map(FULL.numpy()).any()


@pytest.mark.parametrize(("size", "radius"), [((480, 854), 8), ((100, 75), 1), ((97, 250), 3), ((1080, 1920), 18)])
def test_the_radius_is_the_diagonal_times_0_008_rounded_up(size: tuple[int, int], radius: int) -> None:
    assert tolerance_radius(*size) == radius


def square(left: int, top: int, side: int = 50, size: tuple[int, int] = (480, 854)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_shift_within_the_radius_is_forgiven() -> None:  # spec 3.7, number 7
    assert boundary_f(square(100, 100), square(101, 100)) == 1.0
    assert boundary_f(square(100, 100), square(108, 100)) == 1.0
    assert 0 < boundary_f(square(100, 100), square(109, 100)) < 1
    assert boundary_f(square(100, 100), square(500, 100)) == 0.0


def test_empty_boundaries() -> None:
    empty, full = EMPTY.numpy(), FULL.numpy()
    assert boundary_f(empty, empty) == boundary_f(full, empty) == 1.0  # a full frame has no boundary
    assert boundary_f(DOT.numpy(), empty) == boundary_f(empty, DOT.numpy()) == 0.0


def test_void_pixels_leave_both_masks_first() -> None:
    half, void = square(0, 0, 20), square(10, 0, 20)
    assert boundary_f(half, square(0, 0, 20) & ~void, void) == 1.0
    assert boundary_f(half, np.zeros_like(half), half) == 1.0


def test_a_tolerance_of_one_and_more_is_pixels() -> None:
    assert boundary_f(square(100, 100), square(103, 100), tolerance=3) == 1.0
    assert boundary_f(square(100, 100), square(104, 100), tolerance=3) < 1.0


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1).map(np.random.default_rng), st.integers(2, 50), st.integers(2, 50))
def test_agrees_with_scipys_dilation(rng: np.random.Generator, height: int, width: int) -> None:
    a, b, void = (ref.draw_mask(rng, (height, width)) for _ in range(3))
    void &= rng.random(void.shape) < 0.5
    assert boundary_f(a, b, void) == pytest.approx(video.slow_f(a, b, void), abs=1e-12)
    assert boundary_f(a, b) == pytest.approx(boundary_f(b, a), abs=1e-12)


@pytest.mark.parametrize("size", [(120, 160), (200, 90)])
def test_agrees_with_scipys_dilation_at_larger_radii(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        a, b = (ref.draw_mask(rng, size) for _ in range(2))
        for other in (b, np.roll(a, (1, 2), (0, 1))):
            assert boundary_f(a, other) == pytest.approx(video.slow_f(a, other, np.zeros(size, bool)), abs=1e-12)


def test_outlines_are_compared_as_masks_are() -> None:
    a, b = square(100, 100), square(104, 98)
    assert outline_f(outline(a), outline(b)) == boundary_f(a, b)


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"share one size, got \[\(4, 4\), \(4, 5\)\]"):
        boundary_f(np.zeros((4, 4), bool), np.zeros((4, 5), bool))
