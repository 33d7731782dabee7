"""F of DAVIS: how well the boundaries of two masks meet, within a tolerance that grows with the frame.

The rule is that of the DAVIS 2017 evaluation (arXiv 1704.00675): a pixel is boundary where it differs from its right,
lower or lower right neighbour, and is met where the other boundary passes within a disk around it.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

TOLERANCE = 0.008
"""Of the frame's diagonal."""


class Outline(NamedTuple):
    """The boundary of one mask, the pixels within the tolerance around it, both (H, W) bool, and its length in pixels.

    Made once, and compared with as many others as there are: that is what an assignment of answers to objects asks for.
    """

    pixels: np.ndarray
    reach: np.ndarray
    length: int


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour: (H, W) bool to (H, W) bool.

    The last row looks to the right only and the last column down only, so the lower right pixel is never boundary.

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
    """Radius in pixels for a frame: `tolerance` of its diagonal, rounded up; from 1 on, `tolerance` itself is pixels.

    >>> tolerance_radius(480, 854), tolerance_radius(480, 854, 3)
    (8, 3)
    """
    return int(tolerance) if tolerance >= 1 else math.ceil(tolerance * math.hypot(height, width))


def boundary_f(
    prediction: np.ndarray, target: np.ndarray, void: np.ndarray | None = None, tolerance: float = TOLERANCE
) -> float:
    """F of two masks of one frame in [0, 1]: harmonic mean of boundary precision and recall.

    prediction, target: (H, W) bool.
    void: (H, W) bool, pixels taken out of both masks before their boundaries are drawn.

    1 where neither has a boundary (both empty, or both full), 0 where one has.
    Raises ValueError when sizes differ.

    >>> mask = np.zeros((480, 854), bool)
    >>> mask[100:200, 100:200] = True
    >>> boundary_f(mask, np.roll(mask, 1, axis=1)), boundary_f(mask, np.zeros_like(mask))
    (1.0, 0.0)
    """
    if prediction.shape != target.shape or (void is not None and void.shape != target.shape):
        shapes = [tuple(each.shape) for each in (prediction, target, void) if each is not None]
        raise ValueError(f"masks of one frame must share one size, got {shapes}")
    return outline_f(outline(prediction, void, tolerance), outline(target, void, tolerance))


def outline(mask: np.ndarray, void: np.ndarray | None = None, tolerance: float = TOLERANCE) -> Outline:
    """The boundary of an (H, W) bool mask, without the pixels of `void`, (H, W) bool, and what lies around it."""
    pixels = boundary_map(mask if void is None else mask & ~void)
    reach = np.zeros_like(pixels)
    if pixels.any():
        height, width = mask.shape
        radius = tolerance_radius(height, width, tolerance)
        near = _window(pixels, radius)  # what lies farther off is not reached, and would only cost time
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
    """The rows and columns that hold a pixel, and a margin around them."""
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )
