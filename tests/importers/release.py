"""A file as LLM-Seg's authors released theirs: the true names, of any size, made here.

Names and shapes are written out from the release's own modules, not taken from the importer's templates.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaTokenizer

P = "base_model.model."
M = P + "model."
TOWER = M + "vision_tower.vision_tower.vision_model."


@dataclass(frozen=True)
class Sizes:
    """Of a release. The defaults are tiny."""

    vocabulary: int = 0
    width: int = 32
    heads: int = 4
    ffn: int = 48
    layers: int = 2
    lora: int = 2
    vision: int = 64
    vision_ffn: int = 96
    vision_layers: int = 3
    patch: int = 14
    grid: int = 2
    dino: int = 12
    fused: int = 16
    mlp: int = 24
    depth: int = 2


PUBLISHED = Sizes(32_004, 4096, 32, 11_008, 32, 8, 1024, 4096, 24, 14, 16, 1024, 256, 2048, 2)


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor under "module", in the order of the modules."""
    out: dict[str, tuple[int, ...]] = {M + "embed_tokens.weight": (sizes.vocabulary, sizes.width)}
    for n in range(sizes.layers):
        layer = f"{M}layers.{n}."
        for x in "qkvo":
            out[f"{layer}self_attn.{x}_proj.weight"] = (sizes.width, sizes.width)
            if x in "qv":
                out[f"{layer}self_attn.{x}_proj.lora_A.default.weight"] = (sizes.lora, sizes.width)
                out[f"{layer}self_attn.{x}_proj.lora_B.default.weight"] = (sizes.width, sizes.lora)
        out[f"{layer}self_attn.rotary_emb.inv_freq"] = (sizes.width // sizes.heads // 2,)
        out[f"{layer}mlp.gate_proj.weight"] = out[f"{layer}mlp.up_proj.weight"] = (sizes.ffn, sizes.width)
        out[f"{layer}mlp.down_proj.weight"] = (sizes.width, sizes.ffn)
        out[f"{layer}input_layernorm.weight"] = out[f"{layer}post_attention_layernorm.weight"] = (sizes.width,)
    out[M + "norm.weight"] = (sizes.width,)
    out |= _vision(sizes)
    out |= _linear(M + "mm_projector", sizes.width, sizes.vision)
    for name in ("image_encoder.pos_embed", "prompt_encoder.not_a_point_embed.weight", "mask_decoder.iou_token.weight"):
        out[f"{M}visual_model.{name}"] = (2, 3)
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.bias"):
        out[f"{M}visual_model_dinov2.{name}"] = (3, 2)
    return out | _selection(sizes) | {P + "lm_head.weight": (sizes.vocabulary, sizes.width)}


def _linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _vision(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    width = sizes.vision
    places = sizes.grid**2 + 1
    out: dict[str, tuple[int, ...]] = {
        TOWER + "embeddings.class_embedding": (width,),
        TOWER + "embeddings.position_ids": (1, places),
        TOWER + "embeddings.patch_embedding.weight": (width, 3, sizes.patch, sizes.patch),
        TOWER + "embeddings.position_embedding.weight": (places, width),
    }
    out |= _norm(TOWER + "pre_layrnorm", width)
    for n in range(sizes.vision_layers):
        layer = f"{TOWER}encoder.layers.{n}."
        for x in ("k", "v", "q", "out"):
            out |= _linear(f"{layer}self_attn.{x}_proj", width, width)
        out |= _norm(layer + "layer_norm1", width)
        out |= _linear(layer + "mlp.fc1", sizes.vision_ffn, width) | _linear(layer + "mlp.fc2", width, sizes.vision_ffn)
        out |= _norm(layer + "layer_norm2", width)
    return out | _norm(TOWER + "post_layernorm", width)


def _selection(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    fused = sizes.fused
    out = _linear(M + "text_hidden_fcs.0.0", sizes.width, sizes.width)
    out |= _linear(M + "text_hidden_fcs.0.2", fused, sizes.width)
    out |= {M + "lisa_dino_conv.weight": (fused, sizes.dino, 1, 1), M + "lisa_dino_conv.bias": (fused,)}
    attentions = [M + "lisa_final_attn"]
    for n in range(sizes.depth):
        block = f"{M}lisa_attention_layers.{n}."
        attentions += [f"{block}{x}" for x in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")]
        for k in range(1, 5):
            out |= _norm(f"{block}norm{k}", fused)
        out |= _linear(block + "mlp.lin1", sizes.mlp, fused) | _linear(block + "mlp.lin2", fused, sizes.mlp)
    for attention in attentions:
        for x in ("q", "k", "v", "out"):
            out |= _linear(f"{attention}.{x}_proj", fused, fused)
    out |= _norm(M + "lisa_norm_final_attn", fused)
    out |= _linear(M + "lisa_iou_head.0", fused // 2, fused) | _linear(M + "lisa_iou_head.2", 1, fused // 2)
    out |= _linear(M + "lisa_embedding_head.0", fused * 8, fused)
    return out | _linear(M + "lisa_embedding_head.2", fused, fused * 8)


def tensors(sizes: Sizes) -> dict[str, Tensor]:
    """Random bfloat16 weights, views of one flat buffer as ZeRO leaves them; norms near one, tables in float32."""
    wanted = shapes(sizes)
    generator = torch.Generator().manual_seed(0)
    counts = {name: torch.Size(shape).numel() for name, shape in wanted.items()}
    flat = (torch.randn(sum(counts.values()), generator=generator) * 0.25).bfloat16()
    parts = flat.split(list(counts.values()))
    out = {name: part.view(wanted[name]) for name, part in zip(wanted, parts, strict=True)}
    for name, tensor in out.items():
        if "norm" in name and name.endswith("weight") and tensor.ndim == 1:
            tensor.add_(1)
        elif "text_hidden_fcs.0.2" in name or "cross_attn_token_to_image" in name or "lisa_final_attn" in name:
            tensor.mul_(0.25)  # else the text, the same for all masks, would drown what they differ in
        elif "lisa_dino_conv" in name:
            tensor.mul_(4)
    for name in wanted:
        if name.endswith("inv_freq"):
            out[name] = torch.rand(wanted[name])
        elif name.endswith("position_ids"):
            out[name] = torch.arange(wanted[name][1])[None]
    return out


def write(folder: Path, module: dict[str, Tensor]) -> Path:
    """The folder that DeepSpeed leaves: `ckpt_model/latest` and the states of that step."""
    step = folder / "ckpt_model" / "global_step5000"
    step.mkdir(parents=True)
    (folder / "ckpt_model" / "latest").write_text("global_step5000")
    states: dict[str, Any] = {
        "module": OrderedDict(module),
        "buffer_names": [name for name in module if name.endswith("inv_freq")],
        "optimizer": None,
        "param_shapes": [OrderedDict((name, tensor.shape) for name, tensor in module.items())],
        "frozen_param_shapes": None,
        "shared_params": {},
        "lr_scheduler": {"last_batch_iteration": 5000},
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 5000,
        "ds_config": {"bf16": {"enabled": True}, "optimizer": {"type": "AdamW", "params": {"betas": (0.9, 0.95)}}},
        "ds_version": "0.10.0",
    }
    torch.save(states, step / "mp_rank_00_model_states.pt")
    return folder


def base_llava(folder: Path, sizes: Sizes) -> int:
    """The base LLaVA's tokenizer and config.json; gives how many tokens there are with those that LLM-Seg adds."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!':-/<>[]"
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    merges = [("▁", "i"), ("▁i", "s"), ("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "A"), ("S", "S"), ("▁A", "SS")]
    pieces += [one + other for one, other in merges]
    words = LlamaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges)
    words.add_tokens(["<im_patch>"])
    words.save_pretrained(folder)
    config = {
        "model_type": "llava",
        "hidden_size": sizes.width,
        "intermediate_size": sizes.ffn,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "mm_vision_tower": clip_config(folder, sizes),
        "mm_vision_select_layer": -2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return len(words) + 3


def clip_config(folder: Path, sizes: Sizes) -> str:
    """A folder beside `folder` with the config of the vision tower; gives its path."""
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": sizes.vision,
        "intermediate_size": sizes.vision_ffn,
        "num_hidden_layers": sizes.vision_layers,
        "num_attention_heads": max(1, sizes.vision // 64),
        "image_size": sizes.grid * sizes.patch,
        "patch_size": sizes.patch,
    }
    clip = folder.with_name(f"{folder.name}-clip")
    clip.mkdir(exist_ok=True)
    (clip / "config.json").write_text(json.dumps(vision))
    return str(clip)
