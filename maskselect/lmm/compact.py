"""The compact LLaVA: a CLIP tower, a projector and a Llama in plain PyTorch.

Parameter names equal those of transformers' `LlavaForConditionalGeneration`, so each can load the other's weights.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.lmm.clip_tower import ClipTower
from maskselect.lmm.llama import INIT_STD, Llama
from maskselect.structures.protocols import VisionTower


@dataclass(frozen=True)
class LlavaSizes:
    """Sizes of a compact LLaVA.

    Attributes:
        width, layers, heads, ffn, max_positions: of the Llama.
        vision_width, vision_layers, vision_heads, vision_ffn: of the CLIP tower, whose penultimate layer is used.
        image_size, patch_size: in pixels.
    """

    width: int = 144
    layers: int = 6
    heads: int = 4
    ffn: int = 384
    max_positions: int = 2048
    vision_width: int = 64
    vision_layers: int = 5
    vision_heads: int = 2
    vision_ffn: int = 192
    image_size: int = 128
    patch_size: int = 16


class Projector(nn.Module):
    """From the tower's width E to the language model's width D."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)
        for layer in (self.linear_1, self.linear_2):
            nn.init.normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(..., E) to (..., D)."""
        out: Tensor = self.linear_2(F.gelu(self.linear_1(features)))
        return out


class _Trunk(nn.Module):
    """The modules whose parameter names begin with "model."."""

    def __init__(self, sizes: LlavaSizes, vocabulary: int, tower: VisionTower | None) -> None:
        super().__init__()
        clip = (sizes.vision_width, sizes.vision_layers, sizes.vision_heads, sizes.vision_ffn)
        self.vision_tower: Any = tower or ClipTower(*clip, sizes.image_size, sizes.patch_size)
        self.multi_modal_projector = Projector(tower.channels if tower else sizes.vision_width, sizes.width)
        self.language_model = Llama(vocabulary, sizes.width, sizes.layers, sizes.heads, sizes.ffn, sizes.max_positions)


class CompactLlava(nn.Module):
    """A LLaVA with random weights and tied embeddings.

    Args:
        sizes: sizes of its parts.
        vocabulary: number of tokens.
        tower: replaces the CLIP tower.
    """

    def __init__(self, sizes: LlavaSizes, vocabulary: int, tower: VisionTower | None = None) -> None:
        super().__init__()
        self.sizes = sizes
        self.model = _Trunk(sizes, vocabulary, tower)
        self.lm_head = nn.Linear(sizes.width, vocabulary, bias=False)
        self.tie_weights()
        self.config = SimpleNamespace(
            text_config=self.model.language_model.config,
            vision_config=None if tower else self.model.vision_tower.config,
            vision_feature_layer=-2,
            tie_word_embeddings=True,
        )

    def tie_weights(self) -> None:
        """Make the LM head share the weight of the embeddings."""
        self.lm_head.weight = self.model.language_model.embed_tokens.weight

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embeddings."""
        return self.model.language_model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear:
        """The LM head."""
        return self.lm_head

    @torch.no_grad()
    def resize_token_embeddings(self, rows: int, mean_resizing: bool = False) -> None:
        """Add tokens with zero embeddings; `mean_resizing` exists in transformers and is ignored."""
        embeddings = self.get_input_embeddings()
        weight = F.pad(embeddings.weight, (0, 0, 0, rows - embeddings.num_embeddings))
        embeddings.weight = nn.Parameter(weight, requires_grad=embeddings.weight.requires_grad)
        embeddings.num_embeddings = self.lm_head.out_features = rows
        self.tie_weights()
