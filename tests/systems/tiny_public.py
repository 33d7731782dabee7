"""Public models at the smallest size that has every part, with random weights, in folders as the hub has them."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    GemmaTokenizer,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLTextConfig,
    Qwen2VLVideoProcessor,
    Qwen2VLVisionConfig,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Processor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

from maskselect.lmm.qwen_vl import CHAT_TOKENS, TURN_END
from maskselect.lmm.tokenizer import load_compact_in_transformers
from tests.proposers.tiny_networks import enliven, model_of, prompt_processor
from tests.proposers.tiny_networks import write as write_network

VIDEO = "<|video_pad|>"
QWEN_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""chat_template.json of Qwen/Qwen2-VL-2B-Instruct, without videos."""


@torch.no_grad()
def shaken(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights large enough for inputs to matter; at first biases are zero and norms alike."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(noise * (0.05 if parameter.ndim <= 1 else 0.25))
    return model.eval()


def write_sam2(folder: Path) -> Path:
    torch.manual_seed(0)
    model = model_of("sam2")
    enliven(model)
    write_network(model, folder)
    prompt_processor("sam2").save_pretrained(folder)
    return folder


def gemma_words() -> GemmaTokenizer:
    """The tokenizer class that the files of SigLIP 2 name, with letters alone."""
    letters = [*"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "\u2581", *".,!?'-"]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *letters]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return GemmaTokenizer(vocab=vocabulary, merges=[], add_bos_token=False, add_eos_token=True, padding_side="right")


def write_siglip(folder: Path, naflex: bool = False) -> Path:
    """SigLIP 2, of a fixed resolution as google/siglip2-base-patch16-224, or of any aspect ratio."""
    torch.manual_seed(0)
    words = gemma_words()
    sizes: dict[str, Any] = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": 64, "projection_size": 16}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    if naflex:
        vision = sizes | {"num_patches": 16, "patch_size": 8}
        model: PreTrainedModel = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
        processor: Any = Siglip2Processor(Siglip2ImageProcessor(patch_size=8, max_num_patches=16), words)
    else:
        vision = sizes | {"image_size": 32, "patch_size": 8}
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        processor = SiglipProcessor(SiglipImageProcessor(size={"height": 32, "width": 32}), words)
    shaken(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    words = load_compact_in_transformers()
    sizes: dict[str, Any] = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": 24}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    shaken(model).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, words).save_pretrained(folder)
    return folder


def write_qwen2_vl(folder: Path, context: int = 4096) -> Path:
    """As Qwen/Qwen2-VL-2B-Instruct. context: maximum length of a sequence."""
    torch.manual_seed(0)
    words = load_compact_in_transformers()
    words.add_special_tokens({"additional_special_tokens": [*CHAT_TOKENS, VIDEO], "eos_token": TURN_END})
    ids = dict(zip(CHAT_TOKENS, words.convert_tokens_to_ids(list(CHAT_TOKENS)), strict=True))
    text = Qwen2VLTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=context, pad_token_id=0, bos_token_id=None,
        eos_token_id=words.eos_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    )  # fmt: skip
    vision = Qwen2VLVisionConfig(depth=2, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2)
    config = Qwen2VLConfig(
        vision_config=vision,
        text_config=text,
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        video_token_id=words.convert_tokens_to_ids(VIDEO),
    )
    shaken(Qwen2VLForConditionalGeneration(config)).save_pretrained(folder)
    qwen_processor(words).save_pretrained(folder)
    return folder


def qwen_processor(words: Any) -> Qwen2VLProcessor:
    images = Qwen2VLImageProcessor(min_pixels=4 * 28 * 28, max_pixels=1280 * 28 * 28)
    return Qwen2VLProcessor(images, words, Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE)
