"""Multi-scale deformable attention and the two transformer layers around it (Zhu et al. 2021, 2010.04159).

Pure PyTorch. The sum over samples is taken level by level, so that the samples of all levels, several GB for a large
image, never exist at once. Shape letters: B images, S cells of all levels, Q queries, D channels, M heads, L levels, K
samples a head and level.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from maskselect.proposers.codetr.config import LEVELS, CoDetrConfig

Shapes = tuple[tuple[int, int], ...]


class DeformableAttention(nn.Module):
    """Each query reads a few learned places on each map of the pyramid."""

    def __init__(self, dim: int, heads: int, points: int, levels: int = LEVELS) -> None:
        super().__init__()
        self.heads, self.points, self.levels = heads, points, levels
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._start()

    def _start(self) -> None:
        """Heads begin by looking in different directions, samples at growing distances; all weigh the same."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.points + 1).view(1, 1, -1, 1)
        offsets = direction[:, None, None] * distance.expand(-1, self.levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, value: Tensor, references: Tensor, shapes: Shapes, padding: Tensor) -> Tensor:
        """What each query reads, (B, Q, D).

        query: (B, Q, D).  value: (B, S, D).  padding: (B, S) bool, cells that read as zero.
        references: (B, Q, L, 2) points or (B, Q, L, 4) boxes, as shares of each map. Offsets are in cells around a
            point, and in eighths (at K = 4) of the sides around the centre of a box.
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
            result = result + self._read(cells, (height, width), places, weights[:, :, :, level])
        return self.output_proj(result)

    def _read(self, cells: Tensor, shape: tuple[int, int], places: Tensor, weights: Tensor) -> Tensor:
        """Weighted samples of one level, (B, Q, D).

        cells: (B, h * w, D).  places: (B, Q, M, K, 2) shares of the map.  weights: (B, Q, M, K).
        """
        maps = rearrange(cells, "b (h w) (m d) -> (b m) d h w", m=self.heads, h=shape[0])
        grid = rearrange(2 * places - 1, "b q m k xy -> (b m) q k xy")
        samples = F.grid_sample(maps, grid.to(maps.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
        read = (samples * rearrange(weights, "b q m k -> (b m) 1 q k")).sum(-1)
        return rearrange(read, "(b m) d q -> b q (m d)", m=self.heads)


class FeedForward(nn.Sequential):
    """Linear, ReLU, Linear."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out or dim))


class EncoderLayer(nn.Module):
    """Deformable attention among the cells of the pyramid, then a feed-forward part; each is added and normalised."""

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        self.attention = DeformableAttention(config.dim, config.heads, config.points)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.ffn_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, positions: Tensor, references: Tensor, shapes: Shapes, padding: Tensor) -> Tensor:
        """Cells x (B, S, D) with positions of the same shape, to (B, S, D); the rest as in `DeformableAttention`."""
        x = self.attention_norm(x + self.attention(x + positions, x, references, shapes, padding))
        return self.ffn_norm(x + self.ffn(x))


class DecoderLayer(nn.Module):
    """Attention among queries, deformable attention to the cells, a feed-forward part; each is added and normalised."""

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
        """Queries x (B, Q, D) with positions of the same shape, and cells memory (B, S, D), to (B, Q, D)."""
        placed = x + positions
        x = self.self_norm(x + self.self_attention(placed, placed, x, need_weights=False)[0])
        x = self.attention_norm(x + self.attention(x + positions, memory, references, shapes, padding))
        return self.ffn_norm(x + self.ffn(x))
