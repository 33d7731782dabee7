"""The compact encoders in plain PyTorch: a residual ConvNet and a ViT behind a convolutional stem.

Names of parameters, and numbers, are those of timm's `ResNet` and `VisionTransformer` of the same sizes, which tests
compare; timm itself takes seconds to import. `encoders/timm.py` has every network of timm.

Shape letters: B images, S side in pixels, h w the grid, C channels, T = h w tokens, D width.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.init import kaiming_normal_, trunc_normal_, zeros_

from maskselect.backends.checkpoints import load_into
from maskselect.encoders.frozen import FrozenEncoder, as_triple
from maskselect.encoders.stem import ConvStem
from maskselect.structures.features import FeatureInfo, FeatureLevel

_EPS = 1e-6
_HALF, _QUARTER = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class ConvEncoder(FrozenEncoder):
    """A residual ConvNet that returns the outputs of chosen stages.

    Args:
        name: short name, unique within an ensemble.
        image_size: longer side in pixels to which images are resized.
        depths, channels: residual blocks and channels of each stage; stages have strides of 4, 8, 16, ….
        levels: which stages are returned, from 1.
        stem_width: channels of the first convolutions.
        mean, std: RGB normalisation.
        interpolation: how images are resized.
        checkpoint: shipped name or path of one with a card of system "encoder".

    Raises:
        ValueError: for sizes that do not fit together.
        FileNotFoundError: for a checkpoint that does not exist.
    """

    def __init__(
        self,
        name: str = "conv",
        image_size: int = 256,
        depths: Sequence[int] = (1, 2, 2),
        channels: Sequence[int] = (32, 64, 160),
        levels: Sequence[int] = (2, 3),
        stem_width: int = 16,
        mean: Sequence[float] = _HALF,
        std: Sequence[float] = _QUARTER,
        interpolation: str = "bilinear",
        checkpoint: str | None = None,
    ) -> None:
        if len(depths) != len(channels) or not levels or not all(1 <= level <= len(depths) for level in levels):
            raise ValueError(
                f"encoder {name!r}: expected as many depths as channels and levels among the stages from 1, "
                f"got depths {list(depths)}, channels {list(channels)}, levels {list(levels)}"
            )
        side = -(-image_size // (2 << min(levels)))
        chosen = sorted(levels)
        info = FeatureInfo(
            name,
            tuple(FeatureLevel(channels[level - 1], 2 << level) for level in chosen),
            image_size,
            (side, side),
            as_triple(mean, "mean"),
            as_triple(std, "std"),
            any_shape=True,
        )
        super().__init__(info, interpolation, levels=chosen)
        self.stages = chosen
        self.trunk = ConvTrunk(depths[: max(levels)], channels[: max(levels)], stem_width)
        if checkpoint:
            load_into(self, checkpoint, "encoder")
        self.freeze()

    def maps(self, images: Tensor) -> list[Tensor]:
        """Normalised (B, 3, H, W) to one (B, C_i, h_i, w_i) map a stage."""
        outputs = self.trunk(images)
        return [outputs[stage - 1] for stage in self.stages]


class VitEncoder(FrozenEncoder):
    """A ViT without class token behind `ConvStem`; it returns its last layer, after the final norm.

    Position embeddings are resampled for images that are not square.

    Args:
        name: short name, unique within an ensemble.
        image_size: longer side in pixels to which images are resized.
        patch_size: 4, 8, 16 or 32 pixels.
        width, depth, heads: of the transformer.
        mean, std: RGB normalisation.
        interpolation: how images are resized.
        checkpoint: shipped name or path of one with a card of system "encoder".

    Raises:
        ValueError: for sizes that do not fit together.
        FileNotFoundError: for a checkpoint that does not exist.
    """

    def __init__(
        self,
        name: str = "vit",
        image_size: int = 256,
        patch_size: int = 16,
        width: int = 128,
        depth: int = 4,
        heads: int = 2,
        mean: Sequence[float] = _HALF,
        std: Sequence[float] = _QUARTER,
        interpolation: str = "bilinear",
        checkpoint: str | None = None,
    ) -> None:
        if width % heads:
            raise ValueError(f"encoder {name!r}: width {width} is not a multiple of {heads} heads")
        trunk = VitTrunk(image_size, patch_size, width, depth, heads)
        grid = trunk.patch_embed.grid_size
        levels = (FeatureLevel(width, patch_size),)
        mean, std = as_triple(mean, "mean"), as_triple(std, "std")
        info = FeatureInfo(name, levels, image_size, grid, mean, std, any_shape=True)
        super().__init__(info, interpolation, heads=heads)
        self.trunk = trunk
        if checkpoint:
            load_into(self, checkpoint, "encoder")
        self.freeze()

    def maps(self, images: Tensor) -> list[Tensor]:
        """Normalised (B, 3, H, W) to one map (B, D, h, w)."""
        tokens: Tensor = self.trunk(images)
        return [
            rearrange(tokens, "b (h w) d -> b d h w", h=images.shape[-2] // self.info.levels[0].stride).contiguous()
        ]


class ConvTrunk(nn.Module):
    """Three convolutions, a maximum over 3x3, and stages of residual blocks."""

    def __init__(self, depths: Sequence[int], channels: Sequence[int], stem_width: int) -> None:
        super().__init__()
        last = 2 * stem_width
        self.conv1 = nn.Sequential(
            _convolution(3, stem_width, 2),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
            _convolution(stem_width, stem_width),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
            _convolution(stem_width, last),
        )
        self.bn1 = nn.BatchNorm2d(last)
        self.stages = [f"layer{number}" for number in range(1, len(depths) + 1)]
        for stage, depth, width in zip(self.stages, depths, channels, strict=True):
            stride = 1 if stage == "layer1" else 2
            first = ResidualBlock(last, width, stride)
            self.add_module(stage, nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(depth - 1))))
            last = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to the output of every stage, (B, C_i, h_i, w_i)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images)), inplace=True), 3, 2, 1)
        outputs = []
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
            outputs.append(x)
        return outputs


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut. At initialisation it is the shortcut alone."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(before, after, stride), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = _convolution(after, after), nn.BatchNorm2d(after)
        zeros_(self.bn2.weight)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same, or to other channels on the grid that the stride leaves."""
        moved = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        moved += x if self.downsample is None else self.downsample(x)
        return F.relu(moved, inplace=True)


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, 1, bias=False)


class VitTrunk(nn.Module):
    """Stem, positions, blocks and the final norm."""

    def __init__(self, image_size: int, patch_size: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch_embed = ConvStem(image_size, patch_size, embed_dim=width)
        self.pos_embed = nn.Parameter(
            trunc_normal_(torch.empty(1, self.patch_embed.num_patches, width, dtype=torch.float32), std=0.02)
        )
        self.blocks = nn.Sequential(*(VitBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=_EPS)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), multiples of the patch size, to tokens (B, T, D), row by row."""
        grid = self.patch_embed.dynamic_feat_size((images.shape[-2], images.shape[-1]))
        out: Tensor = self.norm(self.blocks(self.patch_embed(images) + self._positions(grid)))
        return out

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings (1, T, D) on a grid; resampled where it is not that of the constructor."""
        if grid == self.patch_embed.grid_size:
            return self.pos_embed
        table = rearrange(self.pos_embed, "1 (h w) d -> 1 d h w", h=self.patch_embed.grid_size[0])
        return rearrange(F.interpolate(table, grid, mode="bicubic", antialias=True), "1 d h w -> 1 (h w) d")


class VitBlock(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attn = VitAttention(width, heads)
        layers = [("fc1", nn.Linear(width, 4 * width)), ("act", nn.GELU()), ("fc2", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to the same."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class VitAttention(nn.Module):
    """Self-attention among all tokens of an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to the same."""
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.proj(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))
        return out
