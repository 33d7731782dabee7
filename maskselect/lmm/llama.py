"""A Llama (arXiv 2302.13971) in plain PyTorch, for the compact language model: transformers takes seconds to import.

Parameter names and results equal those of transformers' `LlamaModel`; tests compare them.

Shape letters: B rows, L positions, P positions in the cache, K = P + L keys, D width, H heads, E width of a head.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of positions, each (B, L, E)."""

_ROPE_BASE = 10_000.0
_EPS = 1e-6
INIT_STD = 0.02
"""Standard deviation of random weights."""


@dataclass
class CachedLayer:
    """Keys and values of one layer: (B, H, P, E)."""

    keys: Tensor
    values: Tensor


class KeyValueCache:
    """Keys and values of earlier positions in every layer."""

    def __init__(self) -> None:
        self.layers: list[CachedLayer] = []

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Append (B, H, L, E) to a layer and return all keys and values of it, each (B, H, K, E)."""
        if layer == len(self.layers):
            self.layers.append(CachedLayer(keys, values))
        else:
            past = self.layers[layer]
            self.layers[layer] = CachedLayer(torch.cat([past.keys, keys], -2), torch.cat([past.values, values], -2))
        return self.layers[layer].keys, self.layers[layer].values

    def get_seq_length(self) -> int:
        """P, the number of cached positions."""
        return self.layers[0].keys.shape[-2] if self.layers else 0


class LlamaOutput(NamedTuple):
    """Hidden states, each (B, L, D).

    last_hidden_state: after the final norm. hidden_states: input of every layer, then the last; empty by default.
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D), in the dtype of `x`."""
        upcast = x.to(torch.float32)
        upcast = upcast * torch.rsqrt(upcast.pow(2).mean(-1, keepdim=True) + _EPS)
        return self.weight * upcast.to(x.dtype)


class RotaryEmbedding(nn.Module):
    """Rotary position embedding (arXiv 2104.09864)."""

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        frequencies = 1.0 / _ROPE_BASE ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        self.register_buffer("inv_freq", frequencies, persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor) -> Rotation:
        """Cosines and sines for positions (B, L) in the dtype of `x`."""
        angles = position_ids[..., None].float() * self.inv_freq.to(x.device, torch.float32)
        both = torch.cat((angles, angles), -1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate (B, H, L, E) by the angles of its positions; channel i pairs with i + E / 2, as in Llama."""
    cosine, sine = (part[:, None] for part in rotation)
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), -1) * sine


class LlamaAttention(nn.Module):
    """Self-attention with rotary positions and a key-value cache."""

    attention_dropout = 0.0

    def __init__(self, width: int, heads: int, number: int) -> None:
        super().__init__()
        self.head_dim, self.number = width // heads, number
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(before, after, bias=False)
            for before, after in [(width, heads * self.head_dim)] * 3 + [(heads * self.head_dim, width)]
        )

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        """(B, L, D) to (B, L, D). mask: (B, 1, L, K) bool; None is causal for L keys, and all keys for one query."""
        queries, keys, values = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        if cache is not None:
            keys, values = cache.update(keys, values, self.number)
        causal = mask is None and queries.shape[2] > 1
        mixed = F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=causal, scale=self.head_dim**-0.5)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


class LlamaMLP(nn.Module):
    """A SwiGLU MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class LlamaLayer(nn.Module):
    """Pre-norm attention and MLP with residual connections."""

    def __init__(self, width: int, heads: int, hidden: int, number: int) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(width, heads, number)
        self.mlp = LlamaMLP(width, hidden)
        self.input_layernorm = RMSNorm(width)
        self.post_attention_layernorm = RMSNorm(width)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        """(B, L, D) to (B, L, D). See `LlamaAttention` for the other arguments."""
        x = x + self.self_attn(self.input_layernorm(x), rotation, mask, cache)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """The decoder without its LM head.

    Args:
        vocabulary, width, layers, heads, hidden, positions: sizes.
        padding: id of the token whose embedding stays zero.
    """

    def __init__(
        self, vocabulary: int, width: int, layers: int, heads: int, hidden: int, positions: int, padding: int = 0
    ) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            model_type="llama",
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            max_position_embeddings=positions,
        )
        self.gradient_checkpointing = False
        self.embed_tokens = nn.Embedding(vocabulary, width, padding_idx=padding)
        self.layers = nn.ModuleList(LlamaLayer(width, heads, hidden, number) for number in range(layers))
        self.norm = RMSNorm(width)
        self.rotary_emb = RotaryEmbedding(width // heads)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)
        with torch.no_grad():
            self.embed_tokens.weight[padding] = 0

    def gradient_checkpointing_enable(self, _: dict[str, bool] | None = None) -> None:
        """Recompute activations in the backward pass; the argument exists in transformers and is ignored."""
        self.gradient_checkpointing = True

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KeyValueCache | None = None,
        use_cache: bool = False,
        output_hidden_states: bool = False,
    ) -> LlamaOutput:
        """Run the layers.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, 1, L, K) bool, True where a query attends to a key; None for causal.
            position_ids: (B, L) int64; None for the positions that follow the cache.
            cache: earlier positions, extended in place if `use_cache`.
            use_cache: whether the cache is used.
            output_hidden_states: whether to return the input of every layer.
        """
        cache = cache if use_cache else None
        length, past = inputs_embeds.shape[1], 0 if cache is None else cache.get_seq_length()
        if position_ids is None:
            position_ids = torch.arange(past, past + length, device=inputs_embeds.device)[None]
        if attention_mask is None and past and length > 1:
            full = torch.ones(length, past + length, dtype=torch.bool, device=inputs_embeds.device)
            attention_mask = full.tril(past)[None, None]
        rotation = self.rotary_emb(inputs_embeds, position_ids)
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        hidden, states = inputs_embeds, []
        for layer in self.layers:
            states.append(hidden)
            inputs = (hidden, rotation, attention_mask, cache)
            hidden = checkpoint(layer, *inputs, use_reentrant=False) if recompute else layer(*inputs)
        hidden = self.norm(hidden)
        return LlamaOutput(hidden, (*states, hidden) if output_hidden_states else ())
