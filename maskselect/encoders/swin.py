"""The Swin transformer (Liu et al. 2021, arXiv 2103.14030) as Mask2Former reads it, in plain PyTorch.

Names of parameters are the original ones. timm's Swin differs where a map is no multiple of the window: it shifts the
map before it pads it, the original pads first. At 1024 pixels with windows of 12 every map is padded. transformers
computes the same as this file, but renames its parameters between releases.

Shape letters: B images, h w the grid, C channels, M heads, W side of a window, N windows, T = W * W tokens of one.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_

from maskselect.backends.checkpoints import load_into
from maskselect.encoders.frozen import FrozenEncoder, as_triple
from maskselect.structures.features import FeatureInfo, FeatureLevel

_PATCH = 4
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SwinEncoder(FrozenEncoder):
    """Swin with a norm on the output of each stage; all stages are returned. The defaults are Swin-B of Mask2Former.

    Args:
        name: short name, unique within an ensemble.
        image_size: longer side in pixels to which images are resized.
        width: channels of the first stage; they double with each stage.
        depths, heads: blocks and heads of each stage; stages have strides of 4, 8, 16, ….
        window: W.
        mean, std: RGB normalisation.
        interpolation: how images are resized.
        checkpoint: shipped name or path of one with a card of system "encoder".

    Raises:
        ValueError: for sizes that do not fit together.
        FileNotFoundError: for a checkpoint that does not exist.
    """

    def __init__(
        self,
        name: str = "swin",
        image_size: int = 1024,
        width: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        heads: Sequence[int] = (4, 8, 16, 32),
        window: int = 12,
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
        interpolation: str = "bilinear",
        checkpoint: str | None = None,
    ) -> None:
        if len(depths) != len(heads) or any((width << k) % count for k, count in enumerate(heads)):
            raise ValueError(
                f"encoder {name!r}: expected as many depths as heads, and heads that divide the channels of their "
                f"stage, got width {width}, depths {list(depths)}, heads {list(heads)}"
            )
        levels = tuple(FeatureLevel(width << k, _PATCH << k) for k in range(len(depths)))
        side = -(-image_size // _PATCH)
        mean, std = as_triple(mean, "mean"), as_triple(std, "std")
        info = FeatureInfo(name, levels, image_size, (side, side), mean, std, any_shape=True)
        super().__init__(info, interpolation, window=window, heads=list(heads))
        self.trunk = SwinTrunk(width, depths, heads, window)
        if checkpoint:
            load_into(self, checkpoint, "encoder")
        self.freeze()

    def maps(self, images: Tensor) -> list[Tensor]:
        """Normalised (B, 3, H, W) to one (B, C_i, h_i, w_i) map a stage."""
        maps: list[Tensor] = self.trunk(images)
        return maps


class SwinTrunk(nn.Module):
    """Patch embedding, stages, and a norm for each stage: `norm0`, `norm1`, …."""

    def __init__(self, width: int, depths: Sequence[int], heads: Sequence[int], window: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width)
        last = len(depths) - 1
        self.layers = nn.ModuleList(
            SwinStage(width << k, depth, count, window, k < last)
            for k, (depth, count) in enumerate(zip(depths, heads, strict=True))
        )
        for k in range(len(depths)):
            self.add_module(f"norm{k}", nn.LayerNorm(width << k))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to the output of every stage, (B, C_i, h_i, w_i)."""
        x, outputs = self.patch_embed(images), []
        stage: Any
        for k, stage in enumerate(self.layers):
            x = stage.blocks(x)
            outputs.append(rearrange(self.get_submodule(f"norm{k}")(x), "b h w c -> b c h w").contiguous())
            x = x if stage.downsample is None else stage.downsample(x)
        return outputs


class PatchEmbed(nn.Module):
    """Patches of 4 pixels to tokens, with a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, width, _PATCH, _PATCH), nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, h, w, C); images are padded to whole patches."""
        height, width = images.shape[-2:]
        patches = self.proj(F.pad(images, (0, -width % _PATCH, 0, -height % _PATCH)))
        tokens: Tensor = self.norm(rearrange(patches, "b c h w -> b h w c"))
        return tokens


class SwinStage(nn.Module):
    """Blocks whose windows are alternately in place and shifted by half a window, and the step to the next stage."""

    def __init__(self, width: int, depth: int, heads: int, window: int, halves: bool) -> None:
        super().__init__()
        shifts = [window // 2 if k % 2 else 0 for k in range(depth)]
        self.blocks = nn.Sequential(*(SwinBlock(width, heads, window, shift) for shift in shifts))
        self.downsample = PatchMerging(width) if halves else None


class PatchMerging(nn.Module):
    """Two by two tokens to one of twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h / 2, w / 2, 2 C), rounded up."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # The original concatenates column by column.
        merged: Tensor = self.reduction(self.norm(rearrange(x, "b (h y) (w x) c -> b h w (x y c)", y=2, x=2)))
        return merged


class SwinBlock(nn.Module):
    """Attention within windows and an MLP, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.mlp = SwinMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to the same."""
        x = x + self._attend(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        """Pad to whole windows, shift, attend, and undo both. Padded tokens are zero and are attended to."""
        height, width = x.shape[1:3]
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        windows = rearrange(x, "b (r y) (c x) d -> b (r c) (y x) d", y=side, x=side)
        windows = self.attn(windows, self._same_region(rows, columns, x.device) if self.shift else None)
        x = rearrange(windows, "b (r c) (y x) d -> b (r y) (c x) d", r=rows, c=columns, y=side, x=side)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :height, :width]

    def _same_region(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """(N, T, T) bool: which tokens of a window are neighbours in the image, and not only through the shift."""
        side, regions = self.window, []
        for count in (rows, columns):
            place = torch.arange(count * side, device=device)
            last = count * side - side
            regions.append((place >= last).int() + (place >= last + side - self.shift).int())
        region = 3 * regions[0][:, None] + regions[1]
        tokens = rearrange(region, "(r y) (c x) -> (r c) (y x)", y=side, x=side)
        return tokens[:, :, None] == tokens[:, None]


class WindowAttention(nn.Module):
    """Self-attention among the tokens of each window, with a learned bias for each relative position."""

    offsets: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        table = torch.empty((2 * window - 1) ** 2, heads, dtype=torch.float32)
        self.relative_position_bias_table = nn.Parameter(trunc_normal_(table, std=0.02))
        place = torch.arange(window)
        apart = place[:, None] - place + window - 1
        offsets = apart[:, None, :, None] * (2 * window - 1) + apart[None, :, None, :]
        self.register_buffer("offsets", offsets.reshape(window**2, window**2), persistent=False)

    def forward(self, windows: Tensor, same: Tensor | None) -> Tensor:
        """Windows (B, N, T, C) to the same; `same` (N, T, T) bool, tokens that may attend to each other."""
        batch = len(windows)
        parts = rearrange(self.qkv(windows), "b n t (k m d) -> k (b n) m t d", k=3, m=self.heads)
        bias = rearrange(self.relative_position_bias_table[self.offsets], "t s m -> m t s")[None]
        if same is not None:
            hidden = torch.zeros(same.shape, dtype=bias.dtype, device=bias.device).masked_fill(~same, -100.0)
            bias = (bias + hidden[:, None]).repeat(batch, 1, 1, 1)
        read = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], bias)
        out: Tensor = self.proj(rearrange(read, "(b n) m t d -> b n t (m d)", b=batch))
        return out


class SwinMlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out
