"""LLM-Seg's fusion of mask embeddings with `[SEG]` (arXiv 2404.08767, section 3.3 and figure 3).

Masks attend to each other and to `[SEG]`, and `[SEG]` attends to them. A block is Segment Anything's two-way block with
masks as queries and `[SEG]` as keys, without position embeddings and without a smaller inner width; the tests compare
the two.

Shape letters: B rows, N masks, C channels, S `[SEG]` tokens of a row (1 in the paper).
"""

from typing import cast

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention with separate projections.

    Raises:
        ValueError: the channels are not a multiple of the heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels {channels} are not a multiple of heads {heads}")
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, N, C) and (B, S, C) to (B, N, C). `valid` (B, S) bool is False for padding keys."""
        q, k, v = (
            rearrange(project(x), "b n (h d) -> b h n d", h=self.heads)
            for project, x in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, keys))
        )
        mask = None if valid is None else valid[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return cast(Tensor, self.out_proj(rearrange(out, "b h n d -> b n (h d)")))


class FusionBlock(nn.Module):
    """Self-attention of masks, masks to `[SEG]`, MLP, and `[SEG]` to masks, with residuals and post-norms."""

    def __init__(self, channels: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(channels, heads)
        self.cross_attn_mask_to_text = Attention(channels, heads)
        self.cross_attn_text_to_mask = Attention(channels, heads)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(channels) for _ in range(4))
        self.lin1, self.lin2 = nn.Linear(channels, mlp_dim), nn.Linear(mlp_dim, channels)

    def forward(self, masks: Tensor, text: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Masks (B, N, C) and `[SEG]` (B, S, C) to the same. `valid` (B, N) bool is False for padding."""
        masks = self.norm1(masks + self.self_attn(masks, masks, valid))
        masks = self.norm2(masks + self.cross_attn_mask_to_text(masks, text))
        masks = self.norm3(masks + self.lin2(F.relu(self.lin1(masks))))
        text = self.norm4(text + self.cross_attn_text_to_mask(text, masks, valid))
        return masks, text


class MaskFusion(nn.Module):
    """Several blocks, and a final attention of masks to `[SEG]`.

    The defaults are the published sizes. With one `[SEG]` per row, the attention to it adds the same vector to every
    mask; its query and key weights exist because the checkpoints have them.
    """

    def __init__(self, channels: int = 256, heads: int = 8, mlp_dim: int = 2048, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionBlock(channels, heads, mlp_dim) for _ in range(depth))
        self.final_attn = Attention(channels, heads)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, masks: Tensor, text: Tensor, valid: Tensor | None = None) -> Tensor:
        """Masks (B, N, C) and `[SEG]` (B, S, C) to fused mask embeddings (B, N, C)."""
        for layer in self.layers:
            masks, text = layer(masks, text, valid)
        return cast(Tensor, self.norm_final_attn(masks + self.final_attn(masks, text)))
