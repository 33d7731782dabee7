"""Loads a language model of transformers with its tokenizer, by hub id or folder, perhaps in 4 bits.

Where no weights are read (`backends.weightless`) and the config is not on this machine, published sizes are used.
LLaVA-1.5 (its config.json; Liu et al. 2023, 2310.03744) is Vicuna with a vocabulary of 32,064 behind CLIP ViT-L/14 at
336 pixels; the vision towers of Qwen2.5-VL (its config.json; Bai et al. 2025, 2502.13923) and of Qwen2-VL (2409.12191)
have one size. So has that of InternVL3 up to 14B (its config.json; Zhu et al. 2025, 2504.10479), a ViT of 300M.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLTextConfig,
    Qwen2VLVisionConfig,
)

from maskselect.backends.optional import require
from maskselect.backends.pretrained import load_pretrained
from maskselect.backends.weightless import reads_weights

_LLAVA = {
    "llava-hf/llava-1.5-7b-hf": (4096, 32, 32, 11_008),
    "llava-hf/llava-1.5-13b-hf": (5120, 40, 40, 13_824),
}
"""Width, layers, heads and hidden width of the language model."""

_QWEN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (151_936, 2048, 36, 16, 2, 11_008),
    "Qwen/Qwen2.5-VL-7B-Instruct": (152_064, 3584, 28, 28, 4, 18_944),
    "Qwen/Qwen2-VL-2B-Instruct": (151_936, 1536, 28, 12, 2, 8960),
    "Qwen/Qwen2-VL-7B-Instruct": (152_064, 3584, 28, 28, 4, 18_944),
}
"""Vocabulary, width, layers, heads, heads of keys and values, and hidden width of the language model."""


_INTERN = {
    "OpenGVLab/InternVL3-8B-hf": (151_674, 3584, 28, 28, 4, 18_944),
    "OpenGVLab/InternVL3-14B-hf": (151_674, 5120, 48, 40, 8, 13_824),
}
"""The same."""


def load_language_model(
    model: str, what: str, example: str, network: Any, dtype: str | None, quantize: str | None, kept: Sequence[str]
) -> tuple[Any, Any]:
    """Load tokenizer and network; every parameter is trainable.

    Args:
        model, what, example, network: see `load_pretrained`.
        dtype: dtype of the weights; None for that of the files.
        quantize: "nf4" for 4 bits (QLoRA, arXiv 2305.14314).
        kept: names of the parts that are not quantised.

    Raises:
        FileNotFoundError: as `load_pretrained`.
        ValueError: as `load_pretrained`, and without the package that quantises.
    """
    arguments: dict[str, Any] = {"attn_implementation": "sdpa", "dtype": dtype or "auto"}
    if not reads_weights():
        arguments["published"] = published_config(model)
    elif quantize is not None:
        arguments |= _in_4_bits(quantize, kept)
    tokenizer, loaded = load_pretrained(model, what, example, network, AutoTokenizer, **arguments)
    if quantize is not None and not reads_weights():
        _pack_shapes(loaded, kept)
    for parameter in loaded.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return tokenizer, loaded


def load_llava(
    model: str, example: str, dtype: str | None, quantize: str | None
) -> tuple[PreTrainedTokenizerBase, LlavaForConditionalGeneration]:
    """Load a LLaVA; see `load_language_model`. Raises ValueError for one in original naming, too."""
    if reads_weights():
        _refuse_original(model)
    kept = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
    return load_language_model(model, "LLaVA", example, LlavaForConditionalGeneration, dtype, quantize, kept)


def _refuse_original(model: str) -> None:
    """Raise ValueError if the config is of LLaVA's authors; transformers would draw random weights."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(model)
    except OSError:
        return  # `load_pretrained` reports a missing config
    original = config.get("model_type") == "llava_llama" or any(name.startswith("mm_") for name in config)
    if original and "vision_config" not in config:
        local = Path(model).is_dir()
        download = "" if local else f"hf download {model} --local-dir SRC; "
        raise ValueError(
            f"LLaVA {model!r} is in the naming of its authors, for which transformers draws random weights; convert "
            f"it with: {download}maskselect import llava {model if local else 'SRC'} DST"
        )


def _in_4_bits(quantize: str, kept: Sequence[str]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for weights in 4 bits. Raises ValueError without bitsandbytes."""
    require("bitsandbytes", "qlora")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(kept),
    )
    # A GPU packs in seconds what a CPU packs in minutes.
    return {"quantization_config": config, "device_map": {"": "cuda" if torch.cuda.is_available() else "cpu"}}


def _pack_shapes(network: nn.Module, kept: Sequence[str]) -> None:
    """Give linear layers the shapes of 4-bit weights, two numbers in a byte."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and not name.startswith(tuple(kept)):
            packed = torch.empty(layer.weight.numel() // 2, 1, dtype=torch.uint8)
            layer.weight = nn.Parameter(packed, requires_grad=False)


def published_config(model: str) -> PreTrainedConfig | None:
    """The config of a published model by its hub id, as far as it decides shapes and dtypes; None for other models."""
    if model in _LLAVA:
        width, layers, heads, hidden = _LLAVA[model]
        text = LlamaConfig(
            vocab_size=32_064,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=hidden,
            max_position_embeddings=4096,
        )
        # The default vision tower and projector are those of LLaVA-1.5.
        return LlavaConfig(text_config=text, tie_word_embeddings=False, dtype="float16")
    if model in _QWEN:
        vocabulary, width, layers, heads, key_heads, hidden = _QWEN[model]
        older = "Qwen2-VL" in model
        words: Any = (Qwen2VLTextConfig if older else Qwen2_5_VLTextConfig)(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            max_position_embeddings=32_768 if older else 128_000,
            rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
        )
        tied = width < 3584  # only the smallest
        vision: Any
        if older:
            vision = Qwen2VLVisionConfig(hidden_size=width)
            return Qwen2VLConfig(vision_config=vision, text_config=words, tie_word_embeddings=tied, dtype="bfloat16")
        vision = Qwen2_5_VLVisionConfig(hidden_size=1280, out_hidden_size=width)
        return Qwen2_5_VLConfig(vision_config=vision, text_config=words, tie_word_embeddings=tied, dtype="bfloat16")
    if model in _INTERN:
        vocabulary, width, layers, heads, key_heads, hidden = _INTERN[model]
        qwen = Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            max_position_embeddings=32_768,
            tie_word_embeddings=False,
        )
        tower = InternVLVisionConfig(attention_bias=True)
        return InternVLConfig(vision_config=tower, text_config=qwen, tie_word_embeddings=False, dtype="bfloat16")
    return None
