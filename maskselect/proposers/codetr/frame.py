"""Scales and pads an image for Co-DETR, as the published test pipelines do.

Shape letters: H W pixels of the canvas. *Image*: the caller's pixels; *canvas*: the image scaled and padded.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from maskselect.ops.images import size_of
from maskselect.proposers.codetr.config import CoDetrConfig

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""Of RGB values from 0 to 255."""

_GREY = 114.0  # padding of the square canvas, before normalisation


@dataclass(frozen=True)
class Frame:
    """One image on its canvas.

    Attributes:
        pixels: (1, 3, H, W) float32, normalised.
        padding: (1, H, W) bool; all False on a square canvas.
        extent: (width, height) in canvas pixels, the unit of relative boxes.
        scale: canvas pixels per image pixel, (x, y). The two differ, because sizes are whole numbers.
    """

    pixels: Tensor
    padding: Tensor
    extent: tuple[int, int]
    scale: tuple[float, float]


def scaled_size(height: int, width: int, config: CoDetrConfig) -> tuple[int, int]:
    """(h, w) of an image scaled up or down to the largest size that fits; at least one pixel."""
    factor = min(config.long_side / max(height, width), config.short_side / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def to_frame(image: np.ndarray, config: CoDetrConfig) -> Frame:
    """(H, W, 3) uint8 RGB to its canvas, on the CPU.

    Raises:
        ValueError: the array has another shape or dtype, or is empty.
    """
    height, width = scaled_size(*size_of(image), config)
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    scale = (width / image.shape[1], height / image.shape[0])
    mean, std = np.asarray(MEAN, np.float32), np.asarray(STD, np.float32)
    normal = torch.from_numpy((scaled.astype(np.float32) - mean) / std).permute(2, 0, 1)
    if config.square_canvas:
        side = config.long_side
        pixels = torch.from_numpy((_GREY - mean) / std)[:, None, None].repeat(1, side, side)
        padding, extent = torch.zeros(1, side, side, dtype=torch.bool), (side, side)
    else:
        unit = 2 * config.patch_size
        canvas = (-(-height // unit) * unit, -(-width // unit) * unit)
        pixels = torch.zeros(3, *canvas, dtype=torch.float32)
        padding, extent = torch.ones(1, *canvas, dtype=torch.bool), (width, height)
        padding[:, :height, :width] = False
    pixels[:, :height, :width] = normal
    return Frame(pixels[None], padding, extent, scale)
