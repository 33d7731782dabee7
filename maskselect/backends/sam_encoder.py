"""SAM's image encoder (arXiv 2304.02643): a ViT with windows, global layers and decomposed relative positions.

Parameter names and results equal those of the `segment_anything` package's `ImageEncoderViT`, which tests compare.

Shape letters: B images or windows, H W the grid in cells, C channels, h heads, d channels of a head, w window.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_EPS = 1e-6


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        centred = x - x.mean(1, keepdim=True)
        normed = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + _EPS)
        return self.weight[:, None, None] * normed + self.bias[:, None, None]


class MLPBlock(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, width: int, hidden: int, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1, self.lin2, self.act = nn.Linear(width, hidden), nn.Linear(hidden, width), activation()

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        out: Tensor = self.lin2(self.act(self.lin1(x)))
        return out


class ImageEncoderViT(nn.Module):
    """The encoder with its neck.

    Args:
        img_size, patch_size: side of the square image and of a patch in pixels.
        embed_dim, depth, num_heads, mlp_ratio: sizes of the transformer.
        out_chans: channels of the image embedding.
        use_rel_pos: add relative positions to the attention.
        window_size: side of the windows in cells, for all blocks but the `global_attn_indexes`.
        global_attn_indexes: numbers of the blocks with global attention.
    """

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        out_chans: int,
        use_rel_pos: bool,
        window_size: int,
        global_attn_indexes: Sequence[int],
    ) -> None:
        super().__init__()
        self.img_size = img_size
        side = img_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, embed_dim, dtype=torch.float32))
        self.blocks = nn.ModuleList(
            Block(
                embed_dim, num_heads, int(embed_dim * mlp_ratio), use_rel_pos, side,
                0 if number in global_attn_indexes else window_size,
            )
            for number in range(depth)
        )  # fmt: skip
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dim, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) to the image embedding (B, C, H, W)."""
        x = self.patch_embed(pixels) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(rearrange(x, "b h w c -> b c h w"))
        return out


class PatchEmbed(nn.Module):
    """Patch embedding."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, H, W, C)."""
        out: Tensor = rearrange(self.proj(pixels), "b c h w -> b h w c")
        return out


class Block(nn.Module):
    """Attention and MLP with pre-norms and residuals. `window_size` 0 means global attention."""

    def __init__(self, width: int, heads: int, hidden: int, use_rel_pos: bool, side: int, window_size: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, heads, use_rel_pos, window_size or side)
        self.mlp = MLPBlock(width, hidden)
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        normed = self.norm1(x)
        if self.window_size:
            height, width = x.shape[1:3]
            windows, padded = split_windows(normed, self.window_size)
            update = join_windows(self.attn(windows), self.window_size, padded)[:, :height, :width].contiguous()
        else:
            update = self.attn(normed)
        x = x + update
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Attention(nn.Module):
    """Self-attention of the cells of a map. `side` in cells is needed for relative positions."""

    def __init__(self, width: int, heads: int, use_rel_pos: bool, side: int) -> None:
        super().__init__()
        self.num_heads, self.use_rel_pos = heads, use_rel_pos
        self.scale = (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, width * 3), nn.Linear(width, width)
        if use_rel_pos:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads, dtype=torch.float32))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        height, width, heads = x.shape[1], x.shape[2], self.num_heads
        queries, keys, values = rearrange(self.qkv(x), "b h w (three n d) -> three (b n) (h w) d", three=3, n=heads)
        weights = (queries * self.scale) @ keys.transpose(-2, -1)
        if self.use_rel_pos:
            weights = self._add_positions(weights, queries, height, width)
        mixed = weights.softmax(-1) @ values
        out: Tensor = self.proj(rearrange(mixed, "(b n) (h w) d -> b h w (n d)", n=heads, h=height))
        return out

    def _add_positions(self, weights: Tensor, queries: Tensor, height: int, width: int) -> Tensor:
        """Add the decomposed relative positions to attention logits (B h, H W, H W)."""
        grid = rearrange(queries, "b (h w) c -> b h w c", h=height)
        by_row = torch.einsum("bhwc,hkc->bhwk", grid, distances(self.rel_pos_h, height))
        by_column = torch.einsum("bhwc,wkc->bhwk", grid, distances(self.rel_pos_w, width))
        weights = rearrange(weights, "b (h w) (row column) -> b h w row column", h=height, row=height)
        weights = weights + by_row[..., None] + by_column[..., None, :]
        return rearrange(weights, "b h w row column -> b (h w) (row column)")


def distances(table: Tensor, side: int) -> Tensor:
    """Embeddings (L, d) of distances to those of all pairs of cells, (side, side, d); resampled if L is another."""
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], size=2 * side - 1, mode="linear")[0].T
    cells = torch.arange(side, device=table.device)
    return table[cells[:, None] - cells[None] + side - 1]


def split_windows(x: Tensor, side: int) -> tuple[Tensor, tuple[int, int]]:
    """Pad (B, H, W, C) with zeros below and to the right: windows (B n, w, w, C), and the padded (H', W')."""
    height, width = x.shape[1:3]
    padded = (height + -height % side, width + -width % side)
    if padded != (height, width):
        x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
    windows = rearrange(x, "b (down h) (across w) c -> (b down across) h w c", h=side, w=side)
    return windows.contiguous(), padded


def join_windows(windows: Tensor, side: int, padded: tuple[int, int]) -> Tensor:
    """Inverse of `split_windows`, still padded: (B n, w, w, C) to (B, H', W', C)."""
    pattern = "(b down across) h w c -> b (down h) (across w) c"
    return rearrange(windows, pattern, down=padded[0] // side, across=padded[1] // side).contiguous()
