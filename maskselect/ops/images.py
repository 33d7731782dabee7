"""Images as arrays."""

import numpy as np


def size_of(image: np.ndarray) -> tuple[int, int]:
    """(height, width), or ValueError when the image is not (H, W, 3) uint8 with at least one pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8 and not empty, got {image.shape} {image.dtype}")
    return image.shape[0], image.shape[1]
