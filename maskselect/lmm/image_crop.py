"""What a vision tower sees of a picture that is not square: its middle, in the first LLaVAs; LLaVA-1.5 pads instead."""

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as images_of


class CentreCrop(nn.Module):
    """The shorter side to the tower's, then the middle square, as CLIP's own preparation does; the borders are lost.

    A module, though without parameters, so that frozen features are kept under it.

    Args:
        side: of the square, in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1], of any shape, to (B, 3, S, S) float in [0, 1]."""
        whole = (images * 255).round().to(torch.uint8)  # in whole grey values, as CLIP's own preparation
        scaled = images_of.resize(whole, [self.side], interpolation=InterpolationMode.BICUBIC, antialias=True)
        cropped: Tensor = images_of.center_crop(scaled, [self.side, self.side])
        return cropped.float() / 255
