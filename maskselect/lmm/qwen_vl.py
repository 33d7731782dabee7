"""Qwen2.5-VL (arXiv 2502.13923) and Qwen2-VL (2409.12191): images at native resolution, 2-D positions.

They have the interface of `llava.py`.

The model is transformers' `Qwen2_5_VLForConditionalGeneration` or `Qwen2VLForConditionalGeneration`, of any size, by
hub id or folder, or a compact Qwen2.5-VL built from sizes. This file knows nothing about masks.

An image becomes one token for every 28 x 28 pixels. The tokens form a grid (M-RoPE, arXiv 2409.12191, section 2.1):
`image_grid` returns its size, and `tokens/sequence.py` derives position ids from it. The vision tower, in Qwen2.5-VL
with window attention, is frozen; its merger, which makes one token of 2 x 2 patches, is the projector.

Qwen3-VL is not supported: its tower feeds features of several layers into the first layers of its language model
(DeepStack), and `hidden` has no argument for them.

Shape letters: B images, T image tokens, L sequence positions, D language-model width, E features of a token, V width of
the tower.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from maskselect.backends import hub_cache, needs
from maskselect.backends.hub_cache import TOKENIZER
from maskselect.backends.pretrained import model_type
from maskselect.backends.weightless import reads_weights
from maskselect.lmm import tokenizer as compact_tokenizer
from maskselect.lmm.loading import load_language_model, published_config
from maskselect.lmm.lora import LoraSettings
from maskselect.lmm.native_size import NativeSize
from maskselect.lmm.wrapped import Quantize, Wrapped, check_quantize
from maskselect.structures.chat import ChatIds
from maskselect.structures.needs import Arguments, Need

EXAMPLE = "Qwen/Qwen2.5-VL-7B-Instruct"
WHAT = "Qwen2.5-VL or Qwen2-VL"

NETWORKS: dict[str, Any] = {
    Qwen2_5_VLConfig.model_type: Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig.model_type: Qwen2VLForConditionalGeneration,
}
"""The networks of transformers by the `model_type` in their configs."""

QWEN_SYSTEM = "You are a helpful assistant."
"""The system prompt of the family's chat template (an interface constant)."""

TURN, TURN_END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE, IMAGE_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
CHAT_TOKENS = (TURN, TURN_END, IMAGE_START, IMAGE, IMAGE_END)
"""Tokens of the chat template, which every tokenizer of this family has (interface constants)."""


@dataclass(frozen=True)
class QwenSizes:
    """Sizes of a compact Qwen2.5-VL.

    Attributes:
        width, layers, heads, key_heads, ffn, max_positions: of the language model; `key_heads` for keys and values.
        vision_width, vision_layers, vision_heads, vision_ffn: of the tower.
        full_layers: numbers of the tower's layers that attend to the whole image instead of a window.
        patch_size, window_size: in pixels; 2 x 2 patches become one token.
    """

    width: int = 144
    layers: int = 6
    heads: int = 4
    key_heads: int = 2
    ffn: int = 384
    max_positions: int = 2048
    vision_width: int = 64
    vision_layers: int = 4
    vision_heads: int = 2
    vision_ffn: int = 192
    full_layers: tuple[int, ...] = (3,)
    patch_size: int = 14
    window_size: int = 112


class QwenVl(Wrapped):
    """A Qwen2.5-VL or Qwen2-VL with its tokenizer and chat template.

    Args:
        model: hub id or folder; None builds a Qwen2.5-VL from `sizes`.
        sizes: sizes of the compact model, used if `model` is None.
        lora: LoRA on the language model; None trains all of it.
        system_prompt: the system's turn; empty for none.
        gradient_checkpointing: recompute activations in the backward pass.
        dtype: dtype of the frozen weights of a `model`; trained weights stay float32. None for that of the files.
        quantize: hold the language model of a `model` in 4 bits ("nf4", QLoRA: arXiv 2305.14314), for LoRA only; LM
            head, merger and tower are not quantised.
        min_pixels, max_pixels: bounds to which images are scaled; 28 x 28 pixels are one token. The defaults are those
            of transformers, 4 and 1280 tokens; the published models were trained with up to 16,384.

    Raises:
        FileNotFoundError: if weights are missing.
        ValueError: if settings exclude each other, the model is of another family, or a package is not installed.
    """

    images_on_grids = True

    def __init__(
        self,
        model: str | None = None,
        sizes: QwenSizes | None = None,
        lora: LoraSettings | None = None,
        system_prompt: str = QWEN_SYSTEM,
        gradient_checkpointing: bool = False,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        quantize: Quantize | None = None,
        min_pixels: int = 4 * 28 * 28,
        max_pixels: int = 1280 * 28 * 28,
    ) -> None:
        super().__init__()
        check_quantize(quantize, model, lora)
        if model is None:
            self.tokenizer, self.model = build_qwen(sizes or QwenSizes())
        else:
            self.tokenizer, self.model = load_qwen(model, dtype, quantize)
        self.has_own_files = model is not None
        self.system_prompt = system_prompt
        vision = self.model.config.vision_config
        self.size = NativeSize(
            min_pixels, max_pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        )
        self.prepare_training(dtype is not None, lora, gradient_checkpointing)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Weights of the hub or a folder, and the package that quantises them."""
        model, packages = arguments.get("model"), needs.quantizing(arguments)
        return packages if model is None else hub_cache.transformers_model(model, WHAT, EXAMPLE, TOKENIZER) + packages

    def chat(self, with_image: bool) -> ChatIds:
        """The family's template: turns between `<|im_start|>` and `<|im_end|>`, the image before the prompt.

        The template has no place for candidates; they stand between image and prompt.
        """
        system = f"{TURN}system\n{self.system_prompt}{TURN_END}\n" if self.system_prompt else ""
        begin = f"{system}{TURN}user\n" + (IMAGE_START if with_image else "")
        closing = self.token_ids(f"{TURN_END}\n{TURN}assistant\n")
        behind = self.token_ids(IMAGE_END) if with_image else []
        return ChatIds(self.token_ids(begin), behind, [], closing, closing)

    @property
    def vision_tower(self) -> nn.Module:
        """The vision tower, with the trainable merger at its end."""
        return cast(nn.Module, self.model.model.visual)

    @property
    def projector(self) -> nn.Module:
        """The merger: from 2 x 2 patches to one token of the language model's width."""
        return cast(nn.Module, self.model.model.visual.merger)

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The parts that decide `vision_features`: the tower without the merger, and the image size."""
        return self.model.model.visual.patch_embed, self.model.model.visual.blocks, self.size

    @property
    def vision_width(self) -> int:
        """E, which is V for each patch of a token."""
        return self._patch_width * int(self.model.config.vision_config.spatial_merge_size**2)

    @property
    def _patch_width(self) -> int:
        """V."""
        vision = self.model.config.vision_config
        return int(vision.embed_dim if self._is_qwen2 else vision.hidden_size)

    @property
    def _is_qwen2(self) -> bool:
        """Whether the model is a Qwen2-VL."""
        return str(self.model.config.model_type) == Qwen2VLConfig.model_type

    @property
    def most_image_tokens(self) -> int:
        """The maximum of T."""
        return self.size.max_pixels // self.size.side**2

    def image_grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Rows and columns of the tokens of an image of this size in pixels: T is their product.

        Raises:
            ValueError: if the image is too long and narrow.
        """
        return self.size.grid(height, width)

    def vision_features(self, images: Tensor) -> Tensor:
        """Features of the frozen tower: (B, 3, H, W) float in [0, 1] to (B, T, E) float32, row by row.

        Each patch of a token is scaled to a root mean square of 1, in Qwen2-VL to a mean of 0 too. The merger begins
        with the same norm, so its result does not change, and half precision can hold the features.

        Raises:
            ValueError: if the images are too long and narrow.
        """
        patches, grids = self.size(images)
        tower: Any = self.vision_tower
        with _without_merger(tower):
            states = tower(patches.to(tower.dtype), grid_thw=grids.to(patches.device)).last_hidden_state.float()
        norm = self.model.model.visual.merger.ln_q
        if self._is_qwen2:
            return F.layer_norm(states, states.shape[-1:], eps=norm.eps).reshape(len(images), -1, self.vision_width)
        level = F.rms_norm(states, states.shape[-1:], eps=norm.variance_epsilon)
        rows, columns = self.size.grid(*images.shape[-2:])
        order = window_order(rows, columns, tower.window_size // self.size.side)
        by_window = level.reshape(len(images), len(order), -1)
        return by_window[:, torch.argsort(order).to(states.device)]

    def project_image(self, features: Tensor) -> Tensor:
        """Image tokens: (B, T, E) to (B, T, D) float32."""
        merger: Any = self.projector
        patches = features.unflatten(-1, (-1, self._patch_width)).flatten(0, 2)
        merged = merger(patches.to(merger.mlp[0].weight.dtype))
        return cast(Tensor, merged.reshape(*features.shape[:2], -1).float())


def window_order(rows: int, columns: int, side: int) -> Tensor:
    """The order in which the tower has an image's tokens: (rows * columns,) int64.

    Windows of side * side tokens follow row by row, and so do the tokens in each. Windows at the lower and right edge
    may be smaller.
    """
    tokens = torch.arange(rows * columns).reshape(rows, columns)
    return torch.cat([window.flatten() for band in tokens.split(side) for window in band.split(side, 1)])


@contextmanager
def _without_merger(tower: Any) -> Iterator[None]:
    """Skip the tower's merger: it trains, and its weights may be sharded where features are computed."""
    merger, tower.merger = tower.merger, nn.Identity()
    try:
        yield
    finally:
        tower.merger = merger


def load_qwen(
    model: str, dtype: str | None = None, quantize: str | None = None
) -> tuple[PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration | Qwen2VLForConditionalGeneration]:
    """Load a Qwen2.5-VL or Qwen2-VL; see `load_language_model`.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: for another family, missing tensors, a tokenizer without the chat's tokens, or if the package that
            quantises is not installed.
    """
    kept = ["model.visual", "lm_head"]
    tokenizer, loaded = load_language_model(model, WHAT, EXAMPLE, NETWORKS[_kind(model)], dtype, quantize, kept)
    known = tokenizer.get_vocab()
    absent = [token for token in CHAT_TOKENS if token not in known]
    if absent:
        raise ValueError(f"the tokenizer of {model!r} lacks {', '.join(absent)}; expected that of a {WHAT}")
    return tokenizer, loaded


def _kind(model: str) -> str:
    """The `model_type` of a model, one of `NETWORKS`. Raises as `model_type`."""
    published = None if reads_weights() else published_config(model)
    return str(published.model_type) if published else model_type(model, WHAT, EXAMPLE, tuple(NETWORKS))


def build_qwen(sizes: QwenSizes) -> tuple[PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration]:
    """The compact tokenizer with the chat's tokens, and a network with random weights and tied embeddings."""
    tokenizer = compact_tokenizer.load_compact_in_transformers()
    tokenizer.add_special_tokens({"additional_special_tokens": list(CHAT_TOKENS), "eos_token": TURN_END})
    image, start, end = tokenizer.convert_tokens_to_ids([IMAGE, IMAGE_START, IMAGE_END])
    vision = Qwen2_5_VLVisionConfig(
        depth=sizes.vision_layers,
        hidden_size=sizes.vision_width,
        intermediate_size=sizes.vision_ffn,
        num_heads=sizes.vision_heads,
        patch_size=sizes.patch_size,
        window_size=sizes.window_size,
        out_hidden_size=sizes.width,
        fullatt_block_indexes=list(sizes.full_layers),
    )
    half = sizes.width // sizes.heads // 2
    across = 3 * half // 8  # of the angles; the published models use a quarter for time
    sections = [half - 2 * across, across, across]
    text = Qwen2_5_VLTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.width,
        intermediate_size=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
        max_position_embeddings=sizes.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": sections},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )
    return tokenizer, AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
