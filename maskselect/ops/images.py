"""Images as arrays."""

import cv2
import numpy as np

WORKING_SIDE = 1024
"""Longer side, in pixels, of the working image; a larger picture is scaled down to it."""


def size_of(image: np.ndarray) -> tuple[int, int]:
    """(height, width), or ValueError when the image is not (H, W, 3) uint8 with at least one pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8 and not empty, got {image.shape} {image.dtype}")
    return image.shape[0], image.shape[1]


def working_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the working image of a picture of (H, W): the longer side is at most `WORKING_SIDE`."""
    factor = min(1.0, WORKING_SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def working_image(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 scaled down to its working size, in memory of its own."""
    height, width = working_size((image.shape[0], image.shape[1]))
    if (height, width) == image.shape[:2]:
        return image.copy()
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
