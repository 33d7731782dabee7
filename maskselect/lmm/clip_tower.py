"""CLIP's vision tower (arXiv 2103.00020) in plain PyTorch, for the compact language model.

Parameter names and results equal those of transformers' `CLIPVisionModel`; tests compare them.

Shape letters: B images, S side in pixels, T = 1 + number of patches, E width.
"""

from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends.cache_keys import cache_key, weights_digest

_EPS = 1e-5
_INIT_STD = 0.02


class TowerOutput(NamedTuple):
    """hidden_states: input of the first layer and output of every layer, each (B, T, E), class token first."""

    hidden_states: tuple[Tensor, ...]


class ClipEmbeddings(nn.Module):
    """Class token and patches with position embeddings."""

    position_ids: Tensor

    def __init__(self, width: int, image_size: int, patch_size: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width, dtype=torch.float32))
        self.patch_embedding = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        places = (image_size // patch_size) ** 2 + 1
        self.position_embedding = nn.Embedding(places, width)
        self.register_buffer("position_ids", torch.arange(places)[None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, T, E)."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        out: Tensor = torch.cat([first, patches], 1) + self.position_embedding(self.position_ids)
        return out


class ClipAttention(nn.Module):
    """Self-attention among all tokens of an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, E) to (B, T, E)."""
        queries, keys, values = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values, scale=self.head_dim**-0.5)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class ClipMLP(nn.Module):
    """Two linear layers with CLIP's quick GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) to (..., E)."""
        x = self.fc1(x)
        out: Tensor = self.fc2(x * torch.sigmoid(1.702 * x))
        return out


class ClipLayer(nn.Module):
    """Pre-norm attention and MLP with residual connections."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = ClipAttention(width, heads)
        self.layer_norm1 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = ClipMLP(width, hidden)
        self.layer_norm2 = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, E) to (B, T, E)."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class ClipEncoder(nn.Module):
    """All layers; it gives their parameters transformers' names."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(width, heads, hidden) for _ in range(layers))


class ClipTower(nn.Module):
    """The vision tower.

    Args:
        width, layers, heads, hidden: sizes of the transformer.
        image_size, patch_size: in pixels.
    """

    def __init__(self, width: int, layers: int, heads: int, hidden: int, image_size: int, patch_size: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            model_type="clip_vision_model",
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            image_size=image_size,
            patch_size=patch_size,
        )
        self.embeddings = ClipEmbeddings(width, image_size, patch_size)
        self.pre_layrnorm = nn.LayerNorm(width, eps=_EPS)
        self.encoder = ClipEncoder(width, layers, heads, hidden)
        self.post_layernorm = nn.LayerNorm(width, eps=_EPS)  # of the class token, which is unused here
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """Draw random weights with CLIP's standard deviations."""
        width = self.config.hidden_size
        inner = width**-0.5 * (2 * self.config.num_hidden_layers) ** -0.5
        nn.init.normal_(self.embeddings.class_embedding, std=width**-0.5)
        nn.init.normal_(self.embeddings.patch_embedding.weight, std=_INIT_STD)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=_INIT_STD)
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, ClipAttention):
                for part in (module.q_proj, module.k_proj, module.v_proj):
                    nn.init.normal_(part.weight, std=inner)
                nn.init.normal_(module.out_proj.weight, std=width**-0.5)
            elif isinstance(module, ClipMLP):
                nn.init.normal_(module.fc1.weight, std=(2 * width) ** -0.5)
                nn.init.normal_(module.fc2.weight, std=inner)

    def cache_key(self) -> str:
        """Digest of the weights and sizes."""
        return cache_key("ClipTower", weights=weights_digest(self), **vars(self.config))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.embeddings.patch_embedding.weight.dtype

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = True) -> TowerOutput:
        """(B, 3, S, S) normalised pixels to hidden states."""
        states = [self.pre_layrnorm(self.embeddings(pixel_values))]
        for layer in self.encoder.layers:
            states.append(layer(states[-1]))
        return TowerOutput(tuple(states))
