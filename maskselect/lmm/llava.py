"""LLaVA behind one small interface: embeddings in, hidden states out.

The model is transformers' `LlavaForConditionalGeneration`: LLaVA-1.5 7B and 13B by hub id or folder, or the compact one
built here from sizes. Nothing in this file knows about masks.

Shape letters: B images, T image tokens, L sequence positions, D language-model width, E vision width.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    DynamicCache,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from maskselect.backends import checkpoints
from maskselect.lmm import tokenizer as compact_tokenizer
from maskselect.lmm.lora import LoraSettings, add_lora

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""The system sentence that LLaVA-1.5 checkpoints were trained with (an interface constant)."""


@dataclass(frozen=True)
class LlavaSizes:
    """Sizes of a LLaVA built from nothing.

    width, layers, heads, ffn, max_positions: the Llama. vision_*: the CLIP tower, whose penultimate layer is read.
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


class Llava(nn.Module):
    """A LLaVA with its tokenizer and chat template.

    Args:
        model: hub id or folder of a transformers-format LLaVA; None builds one from `sizes`.
        sizes: sizes of the compact model, used when `model` is None.
        start: compact weights to start from (shipped name or path of a safetensors file of system "llava").
        lora: LoRA on the language model; None trains all of it.
        system_prompt: text before " USER:"; empty for the compact model.
        gradient_checkpointing: recompute activations in the backward pass.

    Raises FileNotFoundError when weights are absent.
    """

    def __init__(
        self,
        model: str | None = None,
        sizes: LlavaSizes | None = None,
        start: str | None = None,
        lora: LoraSettings | None = None,
        system_prompt: str = "",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.tokenizer: PreTrainedTokenizerBase
        self.model: Any
        if model is None:
            self.tokenizer = compact_tokenizer.load_compact()
            self.model = _build(sizes or LlavaSizes(), len(self.tokenizer))
        else:
            self.tokenizer, self.model = _from_pretrained(model)
        self.system_prompt = system_prompt
        if start is not None:
            tied = {"lm_head.weight": self.model.state_dict()["lm_head.weight"]}
            if checkpoints.read_card(start)["system"] != "llava":
                raise ValueError(f"checkpoint {start} is not a language model's; expected one of system 'llava'")
            checkpoints.load_strictly(self.model, tied | checkpoints.read_tensors(start), start)
            self.model.tie_weights()
        if lora is not None:
            add_lora(self.language_model, lora)
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            language_model: Any = self.language_model
            language_model.gradient_checkpointing_enable()
        self.vision_tower.requires_grad_(False)

    @property
    def language_model(self) -> nn.Module:
        """The Llama, without its output layer."""
        return cast(nn.Module, self.model.model.language_model)

    @property
    def vision_tower(self) -> nn.Module:
        """The CLIP vision tower."""
        return cast(nn.Module, self.model.model.vision_tower)

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def vision_width(self) -> int:
        """E."""
        return int(self.model.config.vision_config.hidden_size)

    @property
    def max_positions(self) -> int:
        """Longest sequence that the language model was built for, in tokens."""
        return int(self.model.config.text_config.max_position_embeddings)

    def vision_features(self, images: Tensor) -> Tensor:
        """Features of the vision tower: (B, 3, S, S) float in [0, 1], square, any side, to (B, T, E).

        The tower is frozen unless someone unfreezes it.
        Layer and class-token choice are the checkpoint's own (`vision_feature_layer`, -2 in LLaVA-1.5).
        """
        config = self.model.config
        side = config.vision_config.image_size
        images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
        tower: Any = self.vision_tower
        out = tower(pixel_values=((images - mean) / std).to(tower.dtype), output_hidden_states=True)
        return cast(Tensor, out.hidden_states[config.vision_feature_layer][:, 1:])

    def project_image(self, features: Tensor) -> Tensor:
        """Image tokens: (B, T, E) to (B, T, D)."""
        return cast(Tensor, self.model.model.multi_modal_projector(features))

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings: (..., L) int64 to (..., L, D)."""
        language_model: Any = self.language_model
        return cast(Tensor, language_model.get_input_embeddings()(token_ids))

    def hidden(
        self,
        embeddings: Tensor,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Last hidden states, after the final norm: (B, L, D) to (B, L, D).

        visible: (B, 1, L, K) bool, True where a query may look at a key (K includes the cache), or None for causal.
        positions: (B, L) int64 position ids, or None for 0, 1, 2, ….
        cache: keys and values of earlier positions; extended in place.
        """
        # The CPU's fused attention has a backward pass that is twice as slow as plain matrix products (measured at the
        # compact sizes), so training on the CPU takes the latter.
        plain = embeddings.device.type == "cpu" and torch.is_grad_enabled()
        with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            out = self.language_model(
                inputs_embeds=embeddings,
                attention_mask=visible,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return cast(Tensor, out.last_hidden_state)

    def new_cache(self) -> DynamicCache:
        """An empty key-value cache for `hidden`."""
        return DynamicCache(config=self.model.config.text_config)

    def token_logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits: (..., D) to (..., V)."""
        return cast(Tensor, self.model.lm_head(hidden))

    def token_ids(self, text: str, begin: bool = False) -> list[int]:
        """Ids of a text without any added special token, or with the begin token in front."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [self.tokenizer.bos_token_id, *ids] if begin else list(ids)

    @torch.no_grad()
    def generate(self, embeddings: Tensor, max_new_tokens: int = 48) -> str:
        """Greedy continuation of (1, L, D) as text, up to the end token."""
        out = self.model.generate(
            inputs_embeds=embeddings,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        return str(self.tokenizer.decode(out[0], skip_special_tokens=True)).strip()


def _build(sizes: LlavaSizes, vocabulary_size: int) -> LlavaForConditionalGeneration:
    vision = CLIPVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=sizes.vision_ffn,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
    )
    text = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=sizes.width,
        intermediate_size=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.max_positions,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    grid = sizes.image_size // sizes.patch_size
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=3,
        image_seq_length=grid * grid,
        vision_feature_layer=-2,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa")


def _from_pretrained(model: str) -> tuple[PreTrainedTokenizerBase, LlavaForConditionalGeneration]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded: Any = LlavaForConditionalGeneration.from_pretrained(model, attn_implementation="sdpa")
    except OSError as error:
        raise FileNotFoundError(
            f"LLaVA weights {model!r} could not be loaded; expected a folder or a hub id such as "
            f"'llava-hf/llava-1.5-7b-hf' (get it with: hf download {model})"
        ) from error
    return tokenizer, loaded
