"""LLaVA without its weights: on the meta device, from its config alone, with what `lmm/llava.py` makes of it."""

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
)

from maskselect.lmm.llava import IMAGE_FRAME, Llava
from maskselect.lmm.lora import LoraSettings, add_lora

_PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": {"hidden_size": 4096, "layers": 32, "heads": 32, "intermediate_size": 11008},
    "llava-hf/llava-1.5-13b-hf": {"hidden_size": 5120, "layers": 40, "heads": 40, "intermediate_size": 13824},
}
"""Sizes of language models whose config is told here, in case it is not on this machine (their config.json; Liu et al.
2023, 2310.03744): Vicuna with a vocabulary of 32,064 behind CLIP ViT-L/14 at 336 pixels."""


class UnknownSizesError(ValueError):
    """A network cannot be counted, since its config is not on this machine."""


def find_config(model: str) -> LlavaConfig:
    """The config of a LLaVA: that of the folder or the hub's cache, else what is published of it.

    Raises UnknownSizesError when neither is to be had, or when it is no LLaVA's.
    """
    found: LlavaConfig | None = config_here(model, LlavaConfig, "LLaVA", told=model in _PUBLISHED)
    return published_config(model) if found is None else found


def config_here(model: str, kind: type, what: str, told: bool) -> Any:
    """The config in a folder or the hub's cache; None where there is none but its sizes are `told` elsewhere.

    kind: its class.  what: the family, for people.
    Raises UnknownSizesError when there is none, or when it is another family's.
    """
    try:
        found = AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        if told:
            return None
        raise UnknownSizesError(f"the config of {model} is not on this machine") from error
    if not isinstance(found, kind):
        raise UnknownSizesError(f"the config of {model} is not a {what}'s but a {found.model_type}'s")
    return found


def published_config(model: str) -> LlavaConfig:
    """What is known of a published LLaVA without any file of it."""
    sizes = _PUBLISHED[model]
    text = LlamaConfig(
        vocab_size=32_064,
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["heads"],
        intermediate_size=sizes["intermediate_size"],
        max_position_embeddings=4096,
    )
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_seq_length=576,
        vision_feature_layer=-2,
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
        dtype="float16",
    )


def without_weights(config: Any, dtype: str | None) -> Any:
    """A network of transformers by its config, in a dtype or, without one, in that of its files."""
    stored = dtype or config.dtype or "float32"
    held = getattr(torch, stored) if isinstance(stored, str) else stored
    return AutoModelForImageTextToText.from_config(config, dtype=held, attn_implementation="sdpa")


class LlavaSketch(Llava):
    """A `Llava` by hub id or folder whose tensors are on the meta device: names, shapes, dtypes, and what trains.

    The arguments are those of `Llava`; `start` and `base` change no shape and are not read. To be made under
    `torch.device("meta")`. Raises UnknownSizesError as `find_config` does.
    """

    def __init__(
        self,
        model: str,
        lora: LoraSettings | None = None,
        system_prompt: str = "",
        gradient_checkpointing: bool = False,
        frame_image: bool = False,
        dtype: str | None = None,
        quantize: str | None = None,
        **_: Any,
    ) -> None:
        nn.Module.__init__(self)
        config = find_config(model)
        self.model = without_weights(config, dtype)
        if dtype is not None:
            for part in (self.model.get_input_embeddings(), self.model.lm_head, self.projector):
                part.float()
        if quantize is not None:
            pack_in_4_bits(self.language_model)
        self.tokenizer = tokenizer_here(model)
        self.system_prompt, self.strip_added = system_prompt, frame_image
        self.frame_ids = [self.add_token(text, special=True) for text in IMAGE_FRAME] if frame_image else None
        self.square = None
        if lora is not None:
            add_lora(self.language_model, lora)
        self.gradient_checkpointing = gradient_checkpointing
        self.vision_tower.requires_grad_(False)

    def add_token(self, text: str, special: bool = False) -> int:
        """As in `Llava`; without a tokenizer at hand there is a spare row, as published vocabularies have."""
        return 0 if self.tokenizer is None else super().add_token(text, special)

    def token_ids(self, text: str, begin: bool = False) -> list[int]:
        """None: what is written changes no shape."""
        return []


def pack_in_4_bits(language_model: nn.Module) -> None:
    """Linear layers hold their weights as 4-bit numbers do, two in a byte."""
    for layer in language_model.modules():
        if isinstance(layer, nn.Linear):
            packed = torch.empty(layer.weight.numel() // 2, 1, dtype=torch.uint8)
            layer.weight = nn.Parameter(packed, requires_grad=False)


def tokenizer_here(model: str) -> Any:
    """The tokenizer, or None where it is not on this machine."""
    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, TypeError):
        return None
