"""The perceiver resampler of Flamingo (arXiv 2204.14198, section 3.1.1, figure 5): latents that read a set of tokens.

Parameter names are those of lucidrains/flamingo-pytorch (MIT, `PerceiverResampler`) and of InstructSeg's release. Keys
and values include the latents themselves, which the formula in InstructSeg's paper omits.

Shape letters: B rows, N latents, M media tokens, K keys, D width, H heads, E width of a head.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PerceiverAttention(nn.Module):
    """Attention from latents to media tokens and latents.

    Args:
        width: D.
        heads: H.
        head_width: E.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.norm_media, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, media: Tensor, latents: Tensor, visible: Tensor | None, read_latents: int | None) -> Tensor:
        """(B, M, D) and (B, N, D) to the change of the latents, (B, N, D); see `Perceiver.forward`."""
        latents = self.norm_latents(latents)
        keys_from = torch.cat([self.norm_media(media), latents[:, :read_latents]], 1)
        keys, values = self.to_kv(keys_from).chunk(2, -1)
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(latents), keys, values)
        )
        mask = None if visible is None else visible[:, None, None]
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return cast(Tensor, self.to_out(mixed.transpose(1, 2).flatten(2)))


def feed_forward(width: int, multiple: int) -> nn.Sequential:
    """Norm and a two-layer MLP with GELU and `multiple * width` hidden units, without biases in its linear layers."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, multiple * width, bias=False),
        nn.GELU(),
        nn.Linear(multiple * width, width, bias=False),
    )


class Perceiver(nn.Module):
    """Layers of attention and feed-forward with residual connections, and a final norm. It holds no latents.

    Args:
        width: D.
        depth: number of layers.
        heads: H.
        head_width: E.
        ff_mult: hidden width of the feed-forward, in multiples of D.
    """

    def __init__(self, width: int, depth: int, heads: int, head_width: int, ff_mult: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, heads, head_width), feed_forward(width, ff_mult)])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        media: Tensor,
        latents: Tensor,
        media_valid: Tensor | None = None,
        latents_valid: Tensor | None = None,
        read_latents: int | None = None,
    ) -> Tensor:
        """The latents after all layers.

        Args:
            media: (B, M, D) float.
            latents: (B, N, D) float.
            media_valid: (B, M) bool, False on padding, which no latent attends to; None for no padding.
            latents_valid: (B, N) bool, the same for latents; the result at padded latents is meaningless.
            read_latents: only this many latents, the first ones, are keys and values; None for all.

        Returns:
            (B, N, D) float.
        """
        visible = None
        if media_valid is not None or latents_valid is not None:
            of_media = _all_true(media) if media_valid is None else media_valid
            of_latents = _all_true(latents) if latents_valid is None else latents_valid
            visible = torch.cat([of_media, of_latents[:, :read_latents]], 1)
        for attention, mlp in cast(list[list[nn.Module]], self.layers):
            latents = latents + attention(media, latents, visible, read_latents)
            latents = latents + mlp(latents)
        return cast(Tensor, self.norm(latents))


def _all_true(tokens: Tensor) -> Tensor:
    """(B, M) bool for (B, M, D)."""
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
