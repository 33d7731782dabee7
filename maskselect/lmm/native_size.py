"""Images at their own resolution, as the Qwen-VL family sees them: a grid of patches, two by two of them one token.

Shape letters: B images, P patches of one, F numbers of one patch.
"""

import math

import torch
from torch import Tensor, nn
from transformers import Qwen2VLImageProcessor

from maskselect.backends.cache_keys import cache_key

_LONGEST = 200
"""How many times as long as the other a side may be; above it the family's own preparation refuses."""


class NativeSize(nn.Module):
    """The family's own preparation of images, which changes their size only as far as patches and bounds ask for.

    A module, though without parameters, so that frozen features are kept under it.

    Args:
        min_pixels, max_pixels: bounds of what an image is scaled to.
        patch_size: side of a patch in pixels.
        merge_size: that many patches down and across make a token.
        frames: how often a picture stands in a patch, since patches of videos hold that many frames.

    Raises ValueError for bounds between which there is nothing.
    """

    def __init__(self, min_pixels: int, max_pixels: int, patch_size: int, merge_size: int, frames: int) -> None:
        super().__init__()
        self.side = patch_size * merge_size
        """Of what becomes one token, in pixels."""
        if not 0 < min_pixels <= max_pixels or max_pixels < self.side**2:
            raise ValueError(
                f"min_pixels {min_pixels} and max_pixels {max_pixels} leave no size for an image; expected bounds in "
                f"rising order with room for {self.side**2} pixels, one token"
            )
        self.min_pixels, self.max_pixels = min_pixels, max_pixels
        self.patch_size, self.merge_size, self.frames = patch_size, merge_size, frames
        self._prepare = Qwen2VLImageProcessor(
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            patch_size=patch_size,
            merge_size=merge_size,
            temporal_patch_size=frames,
        )

    def cache_key(self) -> str:
        """Of all its settings."""
        names = ("min_pixels", "max_pixels", "patch_size", "merge_size", "frames")
        return cache_key("NativeSize", **{name: getattr(self, name) for name in names})

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of an image of that many pixels.

        Raises ValueError for one whose sides differ by more than a factor of 200.
        """
        if max(height, width) > _LONGEST * min(height, width):
            raise ValueError(
                f"an image of {width} x {height} pixels is too long and narrow for this language model; expected sides "
                f"of which none is more than {_LONGEST} times the other"
            )
        rows, columns = round(height / self.side), round(width / self.side)
        area = rows * columns * self.side**2
        if area > self.max_pixels:
            scale = math.sqrt(height * width / self.max_pixels)
            rows, columns = (max(1, math.floor(length / scale / self.side)) for length in (height, width))
        elif area < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (height * width))
            rows, columns = (math.ceil(length * scale / self.side) for length in (height, width))
        return rows, columns

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) float in [0, 1], of any shape, to patches (B * P, F) float32, and grids of them (B, 3) int64.

        A grid is one frame, then rows and columns. Patches of one token stand together. Raises ValueError as `grid`
        does.
        """
        self.grid(images.shape[-2], images.shape[-1])
        whole = (images * 255).round().to(torch.uint8)  # in whole grey values, as the family's own preparation
        made = self._prepare(images=list(whole), input_data_format="channels_first", return_tensors="pt")
        return made["pixel_values"].to(images.device), made["image_grid_thw"].cpu()
