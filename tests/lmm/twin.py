"""The compact LLaVA as transformers has it: the same weights in `LlavaForConditionalGeneration`."""

from pathlib import Path

from tokenizers import Tokenizer
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from maskselect.lmm.llava import Llava

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""The system prompt of LLaVA-1.5's training."""

LIGHTNING_SYSTEM = VICUNA_SYSTEM.replace("curious user", "curious human").replace("the user's", "the human's")
"""The system prompt of the first LLaVAs, such as LLaVA-Lightning."""


def twin(lmm: Llava) -> LlavaForConditionalGeneration:
    """transformers' own network with the weights of a compact one."""
    sizes = lmm.model.sizes
    vision = CLIPVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=sizes.vision_ffn,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
    )
    text = LlamaConfig(
        vocab_size=lmm.model.get_input_embeddings().num_embeddings,
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
    made: LlavaForConditionalGeneration = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    made.load_state_dict(lmm.model.state_dict())
    return made.to(lmm.model.lm_head.weight.dtype).eval()


def save(lmm: Llava, folder: Path) -> Path:
    """A folder that transformers reads, with tokenizer and weights of a compact LLaVA."""
    twin(lmm).save_pretrained(folder)
    words = Tokenizer.from_str(lmm.tokenizer.tokenizer.to_str())
    given = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **given).save_pretrained(folder)
    return folder
