"""Images as arrays, and their resizing for networks."""

from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]

CORNER_GREY = 128
"""Grey value around a picture in the corner of a square, as Mask2Former pads."""

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


def resized_image(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
    """(H, W, 3) uint8 to (3, h, w) uint8, antialiased; the aspect may change."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if size == image.shape[:2]:
        return pixels
    scaled = F.interpolate(pixels[None].float(), size, mode=interpolation, antialias=True, align_corners=False)[0]
    return scaled.round().clamp(0, 255).to(torch.uint8)


def cornered_image(image: np.ndarray, side: int) -> tuple[Tensor, tuple[int, int]]:
    """(H, W, 3) uint8 in the top left corner of a grey square, (3, S, S) uint8, and its size (h, w) there."""
    scale = side / max(image.shape[:2])
    inner = (max(1, int(image.shape[0] * scale + 0.5)), max(1, int(image.shape[1] * scale + 0.5)))
    return F.pad(resized_image(image, inner), (0, side - inner[1], 0, side - inner[0]), value=CORNER_GREY), inner
