"""How an image that is not square becomes the square that an encoder reads, and a mask with it.

`centre`: in the middle of a square of one value, as LLaVA pads; encoders scale it. `corner`: scaled first, so that its
longer side is the encoder's, then padded to the right and below with the encoder's mean colour, which is zero once
normalised: how Segment Anything frames images, and LLM-Seg after it (its released code; the paper does not say).

Shape letters: B images, N masks, H W pixels, S side of the square.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.ops.masks import pad_to_square, square_padding
from maskselect.structures.features import FeatureInfo

Framing = Literal["centre", "corner"]


def square_images(
    image: np.ndarray, pad_value: float | Sequence[float] = 0.0, device: torch.device | str = "cpu"
) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, S, S) float32 in [0, 1], S = max(H, W), centred as masks are.

    Args:
        image: the picture.
        pad_value: of the padding, in [0, 1]; one value, or one per channel.
        device: where the result is.
    """
    pixels = _channels_first(image, device).float() / 255
    if isinstance(pad_value, int | float):
        return pad_to_square(pixels, pad_value)
    height, width = image.shape[:2]
    left, _, top, _ = square_padding(height, width)
    square = torch.tensor(pad_value, dtype=torch.float32, device=pixels.device)[None, :, None, None].repeat(
        1, 1, *[max(height, width)] * 2
    )
    square[..., top : top + height, left : left + width] = pixels
    return square


def cornered_images(image: np.ndarray, info: FeatureInfo, device: torch.device | str = "cpu") -> Tensor:
    """(H, W, 3) uint8 to (1, 3, S, S) float32 in [0, 1], S = `info.input_size`; scaled in whole grey values, as PIL."""
    from torchvision.transforms.v2 import functional as images_of  # noqa: PLC0415  slow; only this framing needs it

    side, (height, width) = info.input_size, image.shape[:2]
    scale = side / max(height, width)
    size = [max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))]  # Segment Anything's rounding
    scaled = images_of.resize(_channels_first(image, device), size, antialias=True).float() / 255
    out = torch.tensor(info.mean, dtype=torch.float32, device=scaled.device)[None, :, None, None].repeat(
        1, 1, side, side
    )
    out[..., : size[0], : size[1]] = scaled
    return out


def framed_masks(masks: Tensor, framing: Framing) -> Tensor:
    """(N, H, W) bool to (N, S, S) bool, S = max(H, W), padded with False where the image is padded."""
    if framing == "centre":
        return pad_to_square(masks)
    height, width = masks.shape[-2:]
    side = max(height, width)
    return F.pad(masks, (0, side - width, 0, side - height))


def read_part(masks: Tensor, covered: float) -> Tensor:
    """The part of (N, S, S) masks that lies under an encoder's grid, see `FeatureInfo.covered`; at least a pixel."""
    side = max(1, round(masks.shape[-1] * covered))
    return masks[:, :side, :side]


def _channels_first(image: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None]
