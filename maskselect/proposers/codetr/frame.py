"""From an image to the canvas that Co-DETR sees, as the published test pipelines make it.

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

_GREY = 114.0  # raw value of the square canvas's padding


@dataclass(frozen=True)
class Frame:
    """One image on its canvas.

    pixels: (1, 3, H, W) float32, normalised.  padding: (1, H, W) bool; all False on a square canvas.
    extent: (width, height) in canvas pixels that boxes are shares of.
    scale: canvas pixels an image pixel, (x, y); exact for each axis, since sizes are whole numbers.
    """

    pixels: Tensor
    padding: Tensor
    extent: tuple[int, int]
    scale: tuple[float, float]


def scaled_size(height: int, width: int, config: CoDetrConfig) -> tuple[int, int]:
    """(h, w) of an image scaled, up or down, until it just fits; at least one pixel."""
    factor = min(config.long_side / max(height, width), config.short_side / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def to_frame(image: np.ndarray, config: CoDetrConfig) -> Frame:
    """(H, W, 3) uint8 RGB to its canvas, on the CPU.

    Raises ValueError when the image is of another form or empty.
    """
    height, width = scaled_size(*size_of(image), config)
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    scale = (width / image.shape[1], height / image.shape[0])
    values = (scaled.astype(np.float32) - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    normal = torch.from_numpy(values).permute(2, 0, 1)
    if config.square_canvas:
        side = config.long_side
        grey = (torch.full((3,), _GREY, dtype=torch.float32) - torch.tensor(MEAN, dtype=torch.float32)) / torch.tensor(
            STD, dtype=torch.float32
        )
        pixels = grey[:, None, None].repeat(1, side, side)
        padding, extent = torch.zeros(1, side, side, dtype=torch.bool), (side, side)
    else:
        unit = 2 * config.patch_size
        canvas = (-(-height // unit) * unit, -(-width // unit) * unit)
        pixels = torch.zeros(3, *canvas, dtype=torch.float32)
        padding, extent = torch.ones(1, *canvas, dtype=torch.bool), (width, height)
        padding[:, :height, :width] = False
    pixels[:, :height, :width] = normal
    return Frame(pixels[None], padding, extent, scale)
