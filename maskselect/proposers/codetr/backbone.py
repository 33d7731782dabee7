"""The plain vision transformer of EVA-02 with window attention, and a pyramid from its last feature map.

Sources: Fang et al. 2023 (EVA-02, 2303.11331) for the block, which is timm's; Li et al. 2022 (ViTDet, 2203.16527) for
windows and the simple feature pyramid. Shape letters: B images, h w cells of the ViT, C its width, D channels out.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import LayerNorm2d, RotaryEmbeddingCat
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from maskselect.backends.sam_encoder import join_windows, split_windows
from maskselect.proposers.codetr.config import CoDetrConfig

_ROPE_GRID = 16  # cells in pre-training; positions along an axis always run from 0 to this number


class WindowedViT(nn.Module):
    """(B, 3, H, W) normalised images to one map (B, C, H / patch, W / patch).

    H and W must be multiples of the patch size. The padding of images and of windows is not masked.
    """

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        width, patch = config.embed_dim, config.patch_size
        self.window_size, self.global_blocks = config.window_size, frozenset(config.global_blocks)
        self.grid = config.position_grid
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        # The first row is for a class token, which is unused but stored in the published weights.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, width, dtype=torch.float32))
        self.rope = RotaryEmbeddingCat(
            width // config.num_heads, in_pixels=False, ref_feat_shape=[_ROPE_GRID, _ROPE_GRID]
        )
        self.blocks = nn.ModuleList(
            EvaBlock(
                width,
                config.num_heads,
                qkv_fused=False,
                mlp_ratio=8 / 3,
                swiglu_mlp=True,
                scale_mlp=True,
                num_prefix_tokens=0,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float to (B, C, h, w) float."""
        x = rearrange(self.patch_embed(images), "b c h w -> b h w c")
        x = x + self.positions(x.shape[1], x.shape[2])
        rope, window_rope = (self.rope.get_embed(list(shape)) for shape in (x.shape[1:3], [self.window_size] * 2))
        for number, block in enumerate(self.blocks):
            if number in self.global_blocks:
                cells = block(rearrange(x, "b h w c -> b (h w) c"), rope=rope)
                x = rearrange(cells, "b (h w) c -> b h w c", h=x.shape[1])
            else:
                x = self._windowed(block, x, window_rope)
        return rearrange(self.norm(x), "b h w c -> b c h w").contiguous()

    def positions(self, height: int, width: int) -> Tensor:
        """The position embedding, resized: (1, height, width, C)."""
        grid = rearrange(self.pos_embed[:, 1:], "1 (h w) c -> 1 c h w", h=self.grid)
        if (height, width) != (self.grid, self.grid):
            grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return rearrange(grid, "1 c h w -> 1 h w c")

    def _windowed(self, block: Any, x: Tensor, rope: Tensor) -> Tensor:
        """Apply an EVA block to (B, h, w, C) with attention within windows.

        Padding follows the norm, so padding cells are zero, and the attention includes them.
        """
        height, width = x.shape[1:3]
        windows, padded = split_windows(block.norm1(x), self.window_size)
        attended = block.attn(rearrange(windows, "n h w c -> n (h w) c"), rope=rope)
        attended = join_windows(attended.view(windows.shape), self.window_size, padded)
        x = x + attended[:, :height, :width]
        return x + block.mlp(block.norm2(x))


class SimplePyramid(nn.Module):
    """From one map (B, C, h, w) to five of D channels, with 4, 2, 1, 1/2 and 1/4 times as many cells per axis."""

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        wide, half, dim = config.embed_dim, config.embed_dim // 2, config.dim
        double = partial(nn.Upsample, scale_factor=2.0, mode="nearest")
        shrink = partial(nn.MaxPool2d, 3, 2, 1)
        self.p2 = nn.Sequential(
            double(), *_step(wide, half, 3), double(), *_step(half, dim, 3), *_step(dim, dim, 1), *_last(dim)
        )
        self.p3 = nn.Sequential(double(), *_step(wide, half, 3), *_step(half, dim, 1), *_last(dim))
        self.p4 = nn.Sequential(*_step(wide, dim, 1), *_last(dim))
        self.p5 = nn.Sequential(shrink(), *_step(wide, dim, 1), *_last(dim))
        self.p6 = nn.Sequential(shrink(), *_step(wide, wide, 3, stride=2), *_step(wide, dim, 1), *_last(dim))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, h, w) to maps (B, D, ., .), finest first. Half of an odd size is rounded up."""
        return [part(x) for part in (self.p2, self.p3, self.p4, self.p5, self.p6)]


def _conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)


def _step(channels: int, out: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return _conv(channels, out, kernel, stride), LayerNorm2d(out), nn.GELU()


def _last(dim: int) -> tuple[nn.Module, ...]:
    return _conv(dim, dim, 3), LayerNorm2d(dim)
