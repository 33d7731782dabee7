"""Images as arrays."""

import cv2
import numpy as np

WORKING_SIDE = 1024
"""Longer side of the working image in pixels; larger images are scaled down to it."""


def size_of(image: np.ndarray) -> tuple[int, int]:
    """(height, width) of an image.

    Raises:
        ValueError: the array is not (H, W, 3) uint8 with at least one pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8 and not empty, got {image.shape} {image.dtype}")
    return image.shape[0], image.shape[1]


def working_size(size: tuple[int, int], side: int = WORKING_SIDE) -> tuple[int, int]:
    """(h, w) of an image of (H, W), scaled down so that its longer side is at most `side`."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def working_image(image: np.ndarray, side: int = WORKING_SIDE) -> np.ndarray:
    """A contiguous copy of (H, W, 3) uint8, scaled down to `working_size`."""
    height, width = working_size((image.shape[0], image.shape[1]), side)
    if (height, width) == image.shape[:2]:
        return image.copy()
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
