"""A LLaVA of transformers: built from sizes, or read from a folder or the hub."""

from dataclasses import dataclass
from pathlib import Path

from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from maskselect.lmm.loading import load_language_model

EXAMPLE = "llava-hf/llava-1.5-7b-hf"


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


def build_llava(sizes: LlavaSizes, vocabulary_size: int) -> LlavaForConditionalGeneration:
    """A compact LLaVA with random weights, whose input and output embeddings are one."""
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
    network: LlavaForConditionalGeneration = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    return network


def load_llava(
    model: str, dtype: str | None = None, quantize: str | None = None
) -> tuple[PreTrainedTokenizerBase, LlavaForConditionalGeneration]:
    """Tokenizer and model by hub id or folder; the weights in `dtype`, or as the files have them.

    quantize: "nf4" for a language model in 4 bits.
    Raises FileNotFoundError when they are not there; ValueError when they are in LLaVA's original naming, or some are
    missing, either of which transformers would take for a wish for random ones; or without the package that quantises.
    """
    _refuse_original(model)
    kept = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
    return load_language_model(model, "LLaVA", EXAMPLE, LlavaForConditionalGeneration, dtype, quantize, kept)


def _refuse_original(model: str) -> None:
    """Raises ValueError for a folder or hub id whose config is that of LLaVA's authors, not of transformers."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(model)
    except OSError:
        return  # not there, which is told when it is loaded
    original = config.get("model_type") == "llava_llama" or any(name.startswith("mm_") for name in config)
    if original and "vision_config" not in config:
        local = Path(model).is_dir()
        fetching = "" if local else f"hf download {model} --local-dir SRC; "
        raise ValueError(
            f"LLaVA {model!r} is in the naming of its authors, which transformers takes for random weights; make a "
            f"folder of it that can be read with: {fetching}maskselect import llava {model if local else 'SRC'} DST"
        )
