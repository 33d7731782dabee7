"""Sizes of published language models, for counting them where even their config is not on this machine.

LLaVA-1.5 (their config.json; Liu et al. 2023, 2310.03744) is Vicuna with a vocabulary of 32,064 behind CLIP ViT-L/14 at
336 pixels; the vision tower of Qwen2.5-VL (their config.json; Bai et al. 2025, 2502.13923) is the same for all sizes.
"""

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
)

_LLAVA = {
    "llava-hf/llava-1.5-7b-hf": (4096, 32, 32, 11_008),
    "llava-hf/llava-1.5-13b-hf": (5120, 40, 40, 13_824),
}
"""Width, layers, heads and hidden width of the language model."""

_QWEN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (151_936, 2048, 36, 16, 2, 11_008),
    "Qwen/Qwen2.5-VL-7B-Instruct": (152_064, 3584, 28, 28, 4, 18_944),
}
"""Vocabulary, width, layers, heads, heads of keys and values, and hidden width of the language model."""


def published_config(model: str) -> PreTrainedConfig | None:
    """The config of a published model by its hub id, as far as it decides shapes and dtypes; None for any other."""
    if model in _LLAVA:
        return _llava(*_LLAVA[model])
    return _qwen(*_QWEN[model]) if model in _QWEN else None


def _llava(width: int, layers: int, heads: int, hidden: int) -> LlavaConfig:
    text = LlamaConfig(
        vocab_size=32_064,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=hidden,
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


def _qwen(vocabulary: int, width: int, layers: int, heads: int, key_heads: int, hidden: int) -> Qwen2_5_VLConfig:
    text = Qwen2_5_VLTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=128_000,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
    )
    vision = Qwen2_5_VLVisionConfig(hidden_size=1280, out_hidden_size=width)
    tied = width == 2048  # only the smallest
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=tied, dtype="bfloat16")
