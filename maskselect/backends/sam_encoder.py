"""SAM's image encoder (arXiv 2304.02643): a ViT with windows, global layers and decomposed relative positions.

Names of parameters, and numbers, are those of the `segment_anything` package's `ImageEncoderViT`, which tests compare.

Shape letters: B images or windows, H W the grid in cells, C channels, h heads, d channels of a head, w window.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels, dtype=torch.float32)),
            nn.Parameter(torch.zeros(channels, dtype=torch.float32)),
        )

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
        img_size, patch_size: side of the square image and of a patch, in pixels.
        embed_dim, depth, num_heads, mlp_ratio: the transformer.
        out_chans: channels of the image embedding.
        use_rel_pos: add relative positions to the attention.
        window_size: side of the windows in cells, for all blocks but those in `global_attn_indexes`.
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
        """(B, 3, S, S) normalised pixels to the image embedding (B, C, H, W)."""
        x = self.patch_embed(pixels) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return out


class PatchEmbed(nn.Module):
    """Patches to vectors: (B, 3, S, S) to (B, H, W, C)."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, H, W, C)."""
        out: Tensor = self.proj(pixels).permute(0, 2, 3, 1)
        return out


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual. window_size: 0 for global attention."""

    def __init__(self, width: int, heads: int, hidden: int, use_rel_pos: bool, side: int, window_size: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, heads, use_rel_pos, window_size or side)
        self.mlp = MLPBlock(width, hidden)
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        seen = self.norm1(x)
        if self.window_size:
            height, width = x.shape[1:3]
            windows, padded = split_windows(seen, self.window_size)
            seen = join_windows(self.attn(windows), self.window_size, padded)[:, :height, :width].contiguous()
        else:
            seen = self.attn(seen)
        x = x + seen
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Attention(nn.Module):
    """Attention among the cells of a map. side: of the maps that it sees, in cells, if positions are relative."""

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
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv.reshape(3, batch * self.num_heads, height * width, -1).unbind(0)
        weights = (queries * self.scale) @ keys.transpose(-2, -1)
        if self.use_rel_pos:
            weights = self._placed(weights, queries, height, width)
        seen = (weights.softmax(-1) @ values).view(batch, self.num_heads, height, width, -1)
        out: Tensor = self.proj(seen.permute(0, 2, 3, 1, 4).reshape(batch, height, width, -1))
        return out

    def _placed(self, weights: Tensor, queries: Tensor, height: int, width: int) -> Tensor:
        """Attention (B h, H W, H W) plus what rows and columns say of the distance."""
        grid = queries.reshape(-1, height, width, queries.shape[-1])
        by_row = torch.einsum("bhwc,hkc->bhwk", grid, distances(self.rel_pos_h, height))
        by_column = torch.einsum("bhwc,wkc->bhwk", grid, distances(self.rel_pos_w, width))
        placed = weights.view(-1, height, width, height, width) + by_row[..., None] + by_column[..., None, :]
        return placed.view(-1, height * width, height * width)


def distances(table: Tensor, side: int) -> Tensor:
    """Vectors for the distance of every pair of cells: (L, d) to (side, side, d), resampled to 2 side - 1 distances."""
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], size=2 * side - 1, mode="linear")[0].T
    cells = torch.arange(side, device=table.device)
    return table[cells[:, None] - cells[None] + side - 1]


def split_windows(x: Tensor, side: int) -> tuple[Tensor, tuple[int, int]]:
    """(B, H, W, C), padded with zeros below and to the right, to windows (B n, w, w, C); and the padded (H', W')."""
    batch, height, width, channels = x.shape
    padded = (height + -height % side, width + -width % side)
    if padded != (height, width):
        x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
    x = x.view(batch, padded[0] // side, side, padded[1] // side, side, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, side, side, channels), padded


def join_windows(windows: Tensor, side: int, padded: tuple[int, int]) -> Tensor:
    """What `split_windows` split, still padded: (B n, w, w, C) to (B, H', W', C)."""
    rows, columns = padded[0] // side, padded[1] // side
    x = windows.view(-1, rows, columns, side, side, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, *padded, windows.shape[-1])
