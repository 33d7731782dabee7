"""Multi-scale deformable attention and the two transformer layers around it (Zhu et al. 2021, 2010.04159).

Pure PyTorch.
Shape letters: B images, S cells of all levels, Q queries, D channels, M heads, L levels, K samples per head and level.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from maskselect.ops.sampling import weighted_samples
from maskselect.proposers.codetr.config import LEVELS, CoDetrConfig

Shapes = tuple[tuple[int, int], ...]


class DeformableAttention(nn.Module):
    """Attention of each query to a few predicted places on each map of the pyramid."""

    def __init__(self, dim: int, heads: int, points: int, levels: int = LEVELS) -> None:
        super().__init__()
        self.heads, self.points, self.levels = heads, points, levels
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, value: Tensor, references: Tensor, shapes: Shapes, padding: Tensor) -> Tensor:
        """Weighted samples of all maps for each query, (B, Q, D).

        Args:
            query: (B, Q, D).
            value: (B, S, D).
            references: (B, Q, L, 2) points or (B, Q, L, 4) boxes, relative to each map. Offsets are in cells from a
                point, or in eighths of the sides (for K = 4) from the centre of a box.
            shapes: (h, w) of each map.
            padding: (B, S) bool, cells whose value is zero.
        """
        values = self.value_proj(value).masked_fill(padding[..., None], 0.0)
        sizes = {"m": self.heads, "l": self.levels}
        offsets = rearrange(self.sampling_offsets(query), "b q (m l k xy) -> b q m l k xy", **sizes, xy=2)
        weights = rearrange(self.attention_weights(query), "b q (m lk) -> b q m lk", m=self.heads).softmax(-1)
        weights = rearrange(weights, "b q m (l k) -> b q m l k", l=self.levels)
        result = torch.zeros((), dtype=torch.float32, device=query.device)
        maps = values.split([h * w for h, w in shapes], 1)
        for level, ((height, width), cells) in enumerate(zip(shapes, maps, strict=True)):
            reference = references[:, :, level, None, None]
            if references.shape[-1] == 2:
                step = offsets[:, :, :, level] / torch.tensor([width, height], dtype=torch.int64, device=query.device)
            else:
                step = offsets[:, :, :, level] / self.points * reference[..., 2:] * 0.5
            places = reference[..., :2] + step
            result = result + weighted_samples(cells, (height, width), places, weights[:, :, :, level])
        return self.output_proj(result)


class FeedForward(nn.Sequential):
    """Linear, ReLU, Linear."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out or dim))


class EncoderLayer(nn.Module):
    """Deformable attention among cells of the pyramid and a feed-forward network, with residuals and norms."""

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        self.attention = DeformableAttention(config.dim, config.heads, config.points)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.ffn_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, positions: Tensor, references: Tensor, shapes: Shapes, padding: Tensor) -> Tensor:
        """Cells x and positions (B, S, D) to (B, S, D). The other arguments are those of `DeformableAttention`."""
        x = self.attention_norm(x + self.attention(x + positions, x, references, shapes, padding))
        return self.ffn_norm(x + self.ffn(x))


class DecoderLayer(nn.Module):
    """Attention among queries, deformable attention to cells and a feed-forward network, with residuals and norms."""

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(config.dim, config.heads, batch_first=True)
        self.self_norm = nn.LayerNorm(config.dim)
        self.attention = DeformableAttention(config.dim, config.heads, config.points)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.ffn_norm = nn.LayerNorm(config.dim)

    def forward(
        self, x: Tensor, positions: Tensor, memory: Tensor, references: Tensor, shapes: Shapes, padding: Tensor
    ) -> Tensor:
        """Queries x and positions (B, Q, D), and memory, the cells (B, S, D), to (B, Q, D)."""
        placed = x + positions
        x = self.self_norm(x + self.self_attention(placed, placed, x, need_weights=False)[0])
        x = self.attention_norm(x + self.attention(x + positions, memory, references, shapes, padding))
        return self.ffn_norm(x + self.ffn(x))
