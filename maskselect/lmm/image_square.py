"""What a vision tower sees of a picture that is not square: its middle, in the first LLaVAs; LLaVA-1.5 pads instead.

Both are modules, though without parameters, so that frozen features are kept under them.
"""

import torch
from torch import Tensor, nn

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.masks import square_padding

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class CentreCrop(nn.Module):
    """The shorter side to the tower's, then the middle square, as CLIP's own preparation does; the borders are lost.

    Args:
        side: of the square, in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def cache_key(self) -> str:
        """Of the side."""
        return cache_key("CentreCrop", side=self.side)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1], of any shape, to (B, 3, S, S) float in [0, 1]."""
        from torchvision.transforms.v2 import functional as images_of  # noqa: PLC0415  slow; the compact model pads

        cropped: Tensor = images_of.center_crop(_bicubic(_whole(images), [self.side]), [self.side, self.side])
        return cropped.float() / 255


class MeanPadding(nn.Module):
    """The picture in the middle of a square of CLIP's mean colour, brought to the tower's side: as LLaVA-1.5 trains.

    Args:
        side: of the square that comes out, in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def cache_key(self) -> str:
        """Of the side."""
        return cache_key("MeanPadding", side=self.side)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1], of any shape, to (B, 3, S, S) float in [0, 1]."""
        count, _, height, width = images.shape
        left, _, top, _ = square_padding(height, width)
        colour = torch.tensor([int(255 * value) for value in CLIP_MEAN], dtype=torch.uint8, device=images.device)
        square = colour[:, None, None].repeat(count, 1, max(height, width), max(height, width))
        square[..., top : top + height, left : left + width] = _whole(images)
        return _bicubic(square, [self.side, self.side]).float() / 255


def _bicubic(images: Tensor, size: list[int]) -> Tensor:
    """(B, 3, H, W) uint8 to another size, or with the shorter side to one length."""
    from torchvision.transforms.v2 import InterpolationMode  # noqa: PLC0415  slow; the compact model does without
    from torchvision.transforms.v2 import functional as images_of  # noqa: PLC0415

    scaled: Tensor = images_of.resize(images, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return scaled


def _whole(images: Tensor) -> Tensor:
    """In whole grey values, as CLIP's own preparation computes."""
    return (images * 255).round().to(torch.uint8)
