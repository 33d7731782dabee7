"""A convolutional patch embedding for timm's ViTs (Xiao et al. 2021, "Early Convolutions Help Transformers ...").

A compact ViT trained for minutes learns edges and textures much sooner from 3x3 convolutions than from one linear map
of 16x16 pixels.
"""

from itertools import pairwise
from typing import Any

from einops import rearrange
from torch import Tensor, nn


class ConvStem(nn.Module):
    """Strided 3x3 convolutions, each with BatchNorm and ReLU, then a 1x1 to `embed_dim`; one halving a convolution.

    timm's `VisionTransformer` builds it as its `embed_layer`, which decides the arguments.

    Args:
        img_size: side in pixels, or (H, W).
        patch_size: 4, 8, 16 or 32; the stride of the grid.
        in_chans, embed_dim: channels in and out.
        strict_img_size: what timm reads to learn whether other sizes are allowed; nothing here depends on the size.
        output_fmt: "NHWC" keeps the grid of the tokens; else they are (B, h w, D).
        _: timm's further arguments, without effect.

    Raises:
        ValueError: for another patch size, or an image that it does not divide.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 128,
        strict_img_size: bool = True,
        output_fmt: str | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if patch_size not in (4, 8, 16, 32) or height % patch_size or width % patch_size:
            raise ValueError(
                f"conv stem: patches must be 4, 8, 16 or 32 and divide {height} x {width}, got {patch_size}"
            )
        self.img_size = (height, width)
        self.strict_img_size = strict_img_size
        self.on_grid = output_fmt == "NHWC"
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        halvings = patch_size.bit_length() - 1
        last = embed_dim * 3 // 4
        widths = [in_chans] + [max(16, round(last * (i + 1) / halvings / 8) * 8) for i in range(halvings)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers, nn.Conv2d(widths[-1], embed_dim, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to tokens (B, h w, D), row by row, or (B, h, w, D)."""
        features = self.convolutions(images)
        return rearrange(features, "b d h w -> b h w d" if self.on_grid else "b d h w -> b (h w) d")

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Pixels a token, which timm asks for."""
        return self.patch_size[0] if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Grid for an image of (H, W), which timm asks for."""
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]
