"""A decoder beside a frozen language model: candidates attend to the inputs of its layers for image and prompt.

VGent (arXiv 2512.11099) initialises such a decoder from the layers of the language model; its queries attend to the
hidden states of each layer. Further details are not published; the rest is our design.

Each decoder layer starts as a copy of a layer of the language model. In one softmax, its queries attend to inputs of
that layer (the memory, through the copied key and value projections) and to each other. The layer of the language model
does the same for tokens after a cache, so an untrained decoder returns the hidden states that the language model has
for the candidates.

Shape letters: B images, R rows (one per prompt), T memory positions of an image, L of a prompt, Q queries, D width,
K = T + L + Q keys, H key-value heads, E width of a head.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of positions, each (B, L, E)."""


@dataclass(frozen=True)
class LayerStates:
    """The inputs of all layers of a language model at some positions.

    Attributes:
        states: (B, L, D) for each layer.
        positions: (B, L) int64 position ids.
    """

    states: Sequence[Tensor]
    positions: Tensor


@dataclass(frozen=True)
class Memory:
    """Keys and values of some positions for one layer of the decoder: (B, H, T, E)."""

    keys: Tensor
    values: Tensor


class CandidateLayer(nn.Module):
    """One layer of the decoder.

    It calls the parts of a Llama layer (norms, projections, MLP) directly, because the layer's `forward` takes external
    keys and values only from a cache, whose interface changes between versions of transformers.

    Args:
        layer: layer of a Llama; it is copied in float32.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = copy.deepcopy(layer).float().requires_grad_(True)

    def remember(self, states: Tensor, rotation: Rotation) -> Memory:
        """Keys and values of the inputs of the language model's layer, (B, T, D).

        `training/sharding.py` gathers a sharded layer for calls of this method, which must not come from `forward`.
        """
        return self._memory(states, rotation)

    def _memory(self, states: Tensor, rotation: Rotation) -> Memory:
        attention = self.layer.self_attn
        normed = self.layer.input_layernorm(states.to(attention.k_proj.weight.dtype))
        keys, values = (self._heads(project(normed)) for project in (attention.k_proj, attention.v_proj))
        return Memory(_rotated(keys, rotation), values)

    def _heads(self, projected: Tensor) -> Tensor:
        """(B, L, H * E) to (B, H, L, E)."""
        return rearrange(projected, "b l (h e) -> b h l e", e=self.layer.self_attn.head_dim)

    def forward(
        self,
        queries: Tensor,
        rotation: Rotation,
        seen: Tensor,
        image: Memory | tuple[Tensor, Rotation],
        owners: Tensor,
        prompt: tuple[Tensor, Rotation],
    ) -> Tensor:
        """Queries (R, Q, D) to the same shape.

        Args:
            queries: (R, Q, D).
            rotation: of the positions of the queries.
            seen: (R, 1, Q, K) bool, the keys that each query attends to.
            image: memory of the images, or states (B, T, D) and the rotation of their positions.
            owners: (R,) int64, the image of each row.
            prompt: states (R, L, D) and the rotation of their positions.
        """
        held = image if isinstance(image, Memory) else self._memory(*image)
        before = (Memory(held.keys[owners], held.values[owners]), self._memory(*prompt))
        hidden = queries + self._attend(self.layer.input_layernorm(queries), rotation, seen, before)
        out: Tensor = hidden + self.layer.mlp(self.layer.post_attention_layernorm(hidden))
        return out

    def _attend(self, normed: Tensor, rotation: Rotation, seen: Tensor, before: Sequence[Memory]) -> Tensor:
        """Attention of normalised queries (R, Q, D) to the memories and to each other: (R, Q, D)."""
        attention = self.layer.self_attn
        queries, own, values = (
            self._heads(project(normed)) for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        queries, own = _rotated(queries, rotation), _rotated(own, rotation)
        keys = torch.cat([*(part.keys for part in before), own], -2)
        values = torch.cat([*(part.values for part in before), values], -2)
        sharing = queries.shape[1] // keys.shape[1]  # query heads of one key-value head
        if sharing > 1:
            keys, values = (part.repeat_interleave(sharing, 1) for part in (keys, values))
        dropout = attention.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, seen, dropout)
        out: Tensor = attention.o_proj(rearrange(mixed, "b h l e -> b l (h e)"))
        return out


def _rotated(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) in Llama's halves: (B, H, L, E) to the same."""
    cosine, sine = (part[:, None] for part in rotation)
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), -1) * sine


class CandidateDecoder(nn.Module):
    """The decoder: copies of the layers of a Llama, and of its final norm.

    Args:
        language_model: transformers' `LlamaModel`.
        every: copy each `every`-th layer; the last one is copied if `every` divides the number of layers.
        recompute: recompute activations in the backward pass instead of storing them.

    Raises:
        ValueError: the language model has another family, or fewer layers than `every`.
    """

    def __init__(self, language_model: nn.Module, every: int = 1, recompute: bool = False) -> None:
        super().__init__()
        model: Any = language_model
        family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if family != "llama":
            raise ValueError(f"a candidate decoder copies the layers of a Llama, but these are of a {family}")
        if not 1 <= every <= len(model.layers):
            raise ValueError(
                f"every must be from 1 to {len(model.layers)}, the layers of the language model, not {every}"
            )
        self.chosen = list(range(every - 1, len(model.layers), every))
        self.layers = nn.ModuleList(CandidateLayer(model.layers[number]) for number in self.chosen)
        self.recompute = recompute
        self.norm = copy.deepcopy(model.norm).float().requires_grad_(True)
        self.rotary = copy.deepcopy(model.rotary_emb)

    @torch.no_grad()
    def begin_as(self, language_model: nn.Module) -> None:
        """Load the weights of a language model of the same sizes."""
        model: Any = language_model
        for number, layer in zip(self.chosen, self.layers, strict=True):
            layer.layer.load_state_dict(model.layers[number].state_dict())  # type: ignore[union-attr]
        self.norm.load_state_dict(model.norm.state_dict())

    def remember(self, images: LayerStates) -> list[Memory]:
        """The memory of images for each layer of the decoder, for any number of prompts."""
        rotation = self._rotation(images.positions)
        return [
            layer.remember(images.states[number], rotation)  # type: ignore[operator]
            for number, layer in zip(self.chosen, self.layers, strict=True)
        ]

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        seen: Tensor,
        images: LayerStates | list[Memory],
        owners: Tensor,
        prompts: LayerStates,
    ) -> Tensor:
        """Queries to hidden states after the final norm, (R, Q, D) float32.

        Args:
            queries: (R, Q, D).
            positions: (R, Q) int64 position ids.
            seen: (R, 1, Q, K) bool; keys are those of the image, the prompt and the queries, in this order.
            images: states of B images, or their memory from `remember`.
            owners: (R,) int64, the image of each row.
            prompts: states of R prompts, each after its image.
        """
        hidden = queries.to(self.norm.weight.dtype)
        rotation, prompt_rotation = self._rotation(positions), self._rotation(prompts.positions)
        image_rotation = self._rotation(images.positions) if isinstance(images, LayerStates) else None
        for place, (number, layer) in enumerate(zip(self.chosen, self.layers, strict=True)):
            if isinstance(images, LayerStates):
                image: Any = (images.states[number], image_rotation)
            else:
                image = images[place]
            inputs = (hidden, rotation, seen, image, owners, (prompts.states[number], prompt_rotation))
            again = self.recompute and torch.is_grad_enabled()
            hidden = checkpoint(layer, *inputs, use_reentrant=False) if again else layer(*inputs)
        out: Tensor = self.norm(hidden).float()
        return out

    def _rotation(self, positions: Tensor) -> Rotation:
        rotation: Rotation = self.rotary(self.norm.weight, positions)
        return rotation
