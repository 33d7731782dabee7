"""Square inputs for a vision tower: the first LLaVAs crop the centre of a picture, LLaVA-1.5 pads it.

InternVL squashes it. All are modules without parameters, because the keys of stored features cover modules.
"""

import torch
from torch import Tensor, nn

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.masks import square_padding

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class _Square(nn.Module):
    """Makes pictures squares of one side, in pixels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def cache_key(self) -> str:
        """Digest of the class and the side."""
        return cache_key(type(self).__name__, side=self.side)


class CentreCrop(_Square):
    """Scales the shorter side and crops the central square, as CLIP's own preprocessing does.

    Args:
        side: side of the square in pixels.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to (B, 3, S, S) float in [0, 1]."""
        from torchvision.transforms.v2 import functional as transforms  # noqa: PLC0415  slow to import

        cropped: Tensor = transforms.center_crop(_bicubic(_to_uint8(images), [self.side]), [self.side, self.side])
        return cropped.float() / 255


class MeanPadding(_Square):
    """Pads a picture to a square with CLIP's mean colour and scales it, as LLaVA-1.5 does.

    Args:
        side: side of the result in pixels.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to (B, 3, S, S) float in [0, 1]."""
        count, _, height, width = images.shape
        left, _, top, _ = square_padding(height, width)
        colour = torch.tensor([int(255 * value) for value in CLIP_MEAN], dtype=torch.uint8, device=images.device)
        square = colour[:, None, None].repeat(count, 1, max(height, width), max(height, width))
        square[..., top : top + height, left : left + width] = _to_uint8(images)
        return _bicubic(square, [self.side, self.side]).float() / 255


class Squash(_Square):
    """Scales a picture to a square without keeping its aspect, as InternVL does with a tile.

    Args:
        side: side of the result in pixels.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to (B, 3, S, S) float in [0, 1]."""
        return _bicubic(_to_uint8(images), [self.side, self.side]).float() / 255


def _bicubic(images: Tensor, size: list[int]) -> Tensor:
    """Resize (B, 3, H, W) uint8; a single number is the length of the shorter side."""
    from torchvision.transforms.v2 import InterpolationMode  # noqa: PLC0415  slow to import
    from torchvision.transforms.v2 import functional as transforms  # noqa: PLC0415

    scaled: Tensor = transforms.resize(images, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return scaled


def _to_uint8(images: Tensor) -> Tensor:
    """Round to uint8, as CLIP's own preprocessing does."""
    return (images * 255).round().to(torch.uint8)
