"""A Qwen2.5-VL of transformers: built from sizes, or read from a folder or the hub."""

from dataclasses import dataclass

from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
)

from maskselect.backends.pretrained import model_type
from maskselect.backends.weightless import reads_weights
from maskselect.lmm import tokenizer as compact_tokenizer
from maskselect.lmm.loading import load_language_model

EXAMPLE = "Qwen/Qwen2.5-VL-7B-Instruct"
WHAT = "Qwen2.5-VL"

TURN, TURN_END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE, IMAGE_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
CHAT_TOKENS = (TURN, TURN_END, IMAGE_START, IMAGE, IMAGE_END)
"""Tokens of the chat template, which every tokenizer of this family has (interface constants)."""


@dataclass(frozen=True)
class QwenSizes:
    """Sizes of a Qwen2.5-VL built from nothing.

    width, layers, heads, key_heads, ffn, max_positions: the language model; `key_heads` share keys and values.
    vision_*: the tower.  full_layers: those of its layers that see all of an image, and not a window of it.
    patch_size, window_size: in pixels; two by two patches become one token.
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


def build_qwen(sizes: QwenSizes) -> tuple[PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration]:
    """The compact tokenizer with the chat's tokens, and a network with random weights whose output layer is tied."""
    tokenizer = compact_tokenizer.load_compact_in_transformers()
    tokenizer.add_special_tokens({"additional_special_tokens": list(CHAT_TOKENS), "eos_token": TURN_END})
    image, start, end = tokenizer.convert_tokens_to_ids([IMAGE, IMAGE_START, IMAGE_END])
    config = Qwen2_5_VLConfig(
        vision_config=_vision(sizes),
        text_config=_text(sizes, len(tokenizer), tokenizer.eos_token_id),
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )
    return tokenizer, AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")


def _vision(sizes: QwenSizes) -> Qwen2_5_VLVisionConfig:
    return Qwen2_5_VLVisionConfig(
        depth=sizes.vision_layers,
        hidden_size=sizes.vision_width,
        intermediate_size=sizes.vision_ffn,
        num_heads=sizes.vision_heads,
        patch_size=sizes.patch_size,
        window_size=sizes.window_size,
        out_hidden_size=sizes.width,
        fullatt_block_indexes=list(sizes.full_layers),
    )


def _text(sizes: QwenSizes, vocabulary_size: int, end: int) -> Qwen2_5_VLTextConfig:
    half = sizes.width // sizes.heads // 2
    across = 3 * half // 8  # of the angles; a quarter is for time in the published models
    return Qwen2_5_VLTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=sizes.width,
        intermediate_size=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
        max_position_embeddings=sizes.max_positions,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": [half - 2 * across, across, across],
        },
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=0,
    )


def load_qwen(
    model: str, dtype: str | None = None, quantize: str | None = None
) -> tuple[PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration]:
    """Tokenizer and model by hub id or folder; the weights in `dtype`, or as the files have them.

    quantize: "nf4" for a language model in 4 bits.
    Raises FileNotFoundError when they are not there; ValueError when they are of another family, when some are missing,
    when the tokenizer lacks the chat's tokens, or without the package that quantises.
    """
    if reads_weights():
        model_type(model, WHAT, EXAMPLE, (Qwen2_5_VLConfig.model_type,))
    kept = ["model.visual", "lm_head"]
    tokenizer, loaded = load_language_model(
        model, WHAT, EXAMPLE, Qwen2_5_VLForConditionalGeneration, dtype, quantize, kept
    )
    known = tokenizer.get_vocab()
    absent = [token for token in CHAT_TOKENS if token not in known]
    if absent:
        raise ValueError(f"the tokenizer of {model!r} lacks {', '.join(absent)}; expected that of a {WHAT}")
    return tokenizer, loaded
