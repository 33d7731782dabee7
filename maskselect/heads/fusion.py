"""LLM-Seg's fusion of mask embeddings with `[SEG]` (arXiv 2404.08767, section 3.3 and figure 3).

Masks look at each other, at `[SEG]`, and `[SEG]` at them; no positions, no dropout. A block is Segment Anything's
two-way block with masks as its queries and `[SEG]` as its keys, without position embeddings and without narrower
attention; the tests compare the two.

Shape letters: B rows (one `[SEG]` each), N masks, C channels, S `[SEG]` tokens of a row (1 in the paper).
"""

from typing import cast

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention with separate projections.

    Raises ValueError when the heads do not divide the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels {channels} are not a multiple of heads {heads}")
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, N, C) and (B, S, C) to (B, N, C). valid: (B, S) bool, which keys may be seen; at least one a row."""
        q, k, v = (
            rearrange(projection(given), "b n (h d) -> b h n d", h=self.heads)
            for projection, given in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, keys))
        )
        seen = None if valid is None else valid[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return cast(Tensor, self.out_proj(rearrange(out, "b h n d -> b n (h d)")))


class FusionBlock(nn.Module):
    """One block: masks among themselves, masks to `[SEG]`, MLP, `[SEG]` to masks; each added and then normalised."""

    def __init__(self, channels: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(channels, heads)
        self.cross_attn_mask_to_text = Attention(channels, heads)
        self.cross_attn_text_to_mask = Attention(channels, heads)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(channels) for _ in range(4))
        self.lin1, self.lin2 = nn.Linear(channels, mlp_dim), nn.Linear(mlp_dim, channels)

    def forward(self, masks: Tensor, text: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Masks (B, N, C) and `[SEG]` (B, S, C) to the same. valid: (B, N) bool, False on padding."""
        masks = self.norm1(masks + self.self_attn(masks, masks, valid))
        masks = self.norm2(masks + self.cross_attn_mask_to_text(masks, text))
        masks = self.norm3(masks + self.lin2(F.relu(self.lin1(masks))))
        text = self.norm4(text + self.cross_attn_text_to_mask(text, masks, valid))
        return masks, text


class MaskFusion(nn.Module):
    """Several blocks, and once more masks to `[SEG]`.

    The defaults are the published sizes. With one `[SEG]` a row the attention to it has a single key, so it adds the
    same vector to every mask; its query and key weights are kept because checkpoints hold them.
    """

    def __init__(self, channels: int = 256, heads: int = 8, mlp_dim: int = 2048, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionBlock(channels, heads, mlp_dim) for _ in range(depth))
        self.final_attn = Attention(channels, heads)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, masks: Tensor, text: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mask embeddings (B, N, C) that know of each other and of `[SEG]` (B, S, C)."""
        for layer in self.layers:
            masks, text = layer(masks, text, valid)
        return cast(Tensor, self.norm_final_attn(masks + self.final_attn(masks, text)))
