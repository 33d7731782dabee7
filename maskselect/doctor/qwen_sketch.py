"""Qwen2.5-VL without its weights, as `llava_sketch.py` has LLaVA: on the meta device, from its config alone."""

from typing import Any

from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig

from maskselect.doctor.llava_sketch import config_here, pack_in_4_bits, tokenizer_here, without_weights
from maskselect.lmm.lora import LoraSettings
from maskselect.lmm.qwen_building import WHAT
from maskselect.lmm.qwen_vl import QwenVl

_PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
    },
}  # fmt: skip
"""Sizes of language models whose config is told here, in case it is not on this machine (their config.json; Bai et al.
2025, 2502.13923). The vision tower is the same for both."""


def find_config(model: str) -> Qwen2_5_VLConfig:
    """The config of a Qwen2.5-VL: that of the folder or the hub's cache, else what is published of it.

    Raises UnknownSizesError when neither is to be had, or when it is another family's.
    """
    found: Qwen2_5_VLConfig | None = config_here(model, Qwen2_5_VLConfig, WHAT, told=model in _PUBLISHED)
    return published_config(model) if found is None else found


def published_config(model: str) -> Qwen2_5_VLConfig:
    """What is known of a published Qwen2.5-VL without any file of it."""
    sizes = _PUBLISHED[model]
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    text = Qwen2_5_VLTextConfig(**sizes, max_position_embeddings=128_000, rope_parameters=rope)
    vision = Qwen2_5_VLVisionConfig(hidden_size=1280, out_hidden_size=sizes["hidden_size"])
    tied = sizes["hidden_size"] == 2048  # only the smallest
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=tied, dtype="bfloat16")


class QwenSketch(QwenVl):
    """A `QwenVl` by hub id or folder whose tensors are on the meta device: names, shapes, dtypes, and what trains.

    The arguments are those of `QwenVl`. To be made under `torch.device("meta")`. Raises UnknownSizesError as
    `find_config` does.
    """

    def __init__(
        self,
        model: str,
        lora: LoraSettings | None = None,
        gradient_checkpointing: bool = False,
        dtype: str | None = None,
        quantize: str | None = None,
        min_pixels: int = 4 * 28 * 28,
        max_pixels: int = 1280 * 28 * 28,
        **_: Any,
    ) -> None:
        nn.Module.__init__(self)
        config = find_config(model)
        self.model = without_weights(config, dtype)
        if quantize is not None:
            pack_in_4_bits(self.language_model)
        self.tokenizer = tokenizer_here(model)
        self._arrange(lora, "", gradient_checkpointing, dtype, min_pixels, max_pixels)

    def add_token(self, text: str, special: bool = False) -> int:
        """As in `QwenVl`; without a tokenizer at hand there is a spare row, as published vocabularies have."""
        return 0 if self.tokenizer is None else super().add_token(text, special)

    def token_ids(self, text: str, begin: bool = False) -> list[int]:
        """None: what is written changes no shape."""
        return []
