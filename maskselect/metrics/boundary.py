"""F of DAVIS: agreement of two boundaries within a tolerance that grows with the frame.

The rule of the DAVIS 2017 evaluation (arXiv 1704.00675): a boundary pixel differs from its right, lower or lower right
neighbour, and is matched if the other boundary passes within a disk around it.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

TOLERANCE = 0.008
"""Share of the frame's diagonal."""


class Outline(NamedTuple):
    """The boundary of a mask, the pixels within the tolerance around it, both (H, W) bool, and its length in pixels.

    Computed once and compared with many others when answers are assigned to objects.
    """

    pixels: np.ndarray
    reach: np.ndarray
    length: int


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour: (H, W) bool to (H, W) bool.

    The last row has only a right neighbour, the last column only a lower one, so the lower right pixel is no boundary.

    >>> boundary_map(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], bool)).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 0]])
    """
    boundary = np.zeros_like(mask, dtype=bool)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1, :] |= mask[:-1, :] ^ mask[1:, :]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def tolerance_radius(height: int, width: int, tolerance: float = TOLERANCE) -> int:
    """Radius in pixels for a frame: `tolerance` of its diagonal, rounded up; 1 or more is the radius itself.

    >>> tolerance_radius(480, 854), tolerance_radius(480, 854, 3)
    (8, 3)
    """
    return int(tolerance) if tolerance >= 1 else math.ceil(tolerance * math.hypot(height, width))


def boundary_f(
    prediction: np.ndarray, target: np.ndarray, void: np.ndarray | None = None, tolerance: float = TOLERANCE
) -> float:
    """F of two masks of one frame in [0, 1]: harmonic mean of boundary precision and recall.

    Args:
        prediction, target: (H, W) bool.
        void: (H, W) bool, pixels that are removed from both masks first.
        tolerance: see `tolerance_radius`.

    Returns:
        1 if neither mask has a boundary (both empty, or both full), 0 if only one has.

    Raises:
        ValueError: the sizes differ.

    >>> mask = np.zeros((480, 854), bool)
    >>> mask[100:200, 100:200] = True
    >>> boundary_f(mask, np.roll(mask, 1, axis=1)), boundary_f(mask, np.zeros_like(mask))
    (1.0, 0.0)
    """
    if prediction.shape != target.shape or (void is not None and void.shape != target.shape):
        shapes = [tuple(mask.shape) for mask in (prediction, target, void) if mask is not None]
        raise ValueError(f"masks of one frame must share one size, got {shapes}")
    return outline_f(outline(prediction, void, tolerance), outline(target, void, tolerance))


def outline(mask: np.ndarray, void: np.ndarray | None = None, tolerance: float = TOLERANCE) -> Outline:
    """The `Outline` of an (H, W) bool mask without the pixels of `void`, (H, W) bool."""
    pixels = boundary_map(mask if void is None else mask & ~void)
    reach = np.zeros_like(pixels)
    if pixels.any():
        height, width = mask.shape
        radius = tolerance_radius(height, width, tolerance)
        near = _window(pixels, radius)  # nothing is reached outside of it
        reach[near] = cv2.dilate(pixels[near].astype(np.uint8), _disk(radius)).astype(bool)
    return Outline(pixels, reach, int(pixels.sum()))


def outline_f(prediction: Outline, target: Outline) -> float:
    """`boundary_f` of two outlines of one frame."""
    if prediction.length == 0 or target.length == 0:
        return float(prediction.length == target.length)
    precision = int((prediction.pixels & target.reach).sum()) / prediction.length
    recall = int((target.pixels & prediction.reach).sum()) / target.length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _disk(radius: int) -> np.ndarray:
    """(2 r + 1, 2 r + 1) uint8, 1 where a pixel's centre lies within `radius` of the middle."""
    steps = np.arange(-radius, radius + 1)
    return (steps[:, None] ** 2 + steps[None] ** 2 <= radius**2).astype(np.uint8)


def _window(pixels: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the box around all pixels, with a margin."""
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )
