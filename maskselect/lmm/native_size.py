"""Images at native resolution for the Qwen-VL family: a grid of patches, 2 x 2 of which become one token.

Shape letters: B images, P patches of one, F numbers of one patch.
"""

import math

import torch
from torch import Tensor, nn
from transformers import Qwen2VLImageProcessor

from maskselect.backends.cache_keys import cache_key

_LONGEST = 200
"""Maximum ratio of the sides; the family's own preprocessing refuses larger ones."""


class NativeSize(nn.Module):
    """The family's own preprocessing, which rescales an image only to whole patches and within bounds.

    A module without parameters, because the keys of stored features cover modules.

    Args:
        min_pixels, max_pixels: bounds of the size of a rescaled image.
        patch_size: side of a patch in pixels.
        merge_size: side of a token in patches.
        frames: number of video frames in a patch; a picture is repeated.

    Attributes:
        side: side of a token in pixels.

    Raises:
        ValueError: if no size lies between the bounds.
    """

    def __init__(self, min_pixels: int, max_pixels: int, patch_size: int, merge_size: int, frames: int) -> None:
        super().__init__()
        self.side = patch_size * merge_size
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
        """Digest of all settings."""
        names = ("min_pixels", "max_pixels", "patch_size", "merge_size", "frames")
        return cache_key("NativeSize", **{name: getattr(self, name) for name in names})

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the tokens of an image of this size in pixels.

        Raises:
            ValueError: if one side is more than 200 times the other.
        """
        if max(height, width) > _LONGEST * min(height, width):
            raise ValueError(
                f"an image of {width} x {height} pixels is too long and narrow for this language model; expected a "
                f"longer side of at most {_LONGEST} times the shorter one"
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
        """Cut images into patches.

        Args:
            images: (B, 3, H, W) float in [0, 1].

        Returns:
            Patches (B * P, F) float32, those of a token together, and grids (B, 3) int64: 1, rows, columns.

        Raises:
            ValueError: as `grid`.
        """
        self.grid(images.shape[-2], images.shape[-1])
        pixels = (images * 255).round().to(torch.uint8)  # as in the family's own preprocessing
        batch = self._prepare(images=list(pixels), input_data_format="channels_first", return_tensors="pt")
        return batch["pixel_values"].to(images.device), batch["image_grid_thw"].cpu()
