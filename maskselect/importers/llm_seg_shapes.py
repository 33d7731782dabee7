"""What a released LLM-Seg must hold: every tensor that we need of it, by our name, with its shape.

Sizes come from the base LLaVA's config.json and from our own config; the vocabulary's and the vision tower's from the
file. Models are built on the meta device, so nothing here takes memory.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from maskselect.backends.config_tree import arguments_of
from maskselect.heads.fusion import MaskFusion
from maskselect.heads.overlap import IopHead, IouHead
from maskselect.importers.bare_encoders import bare_encoders
from maskselect.importers.llm_seg_names import LLAVA, LLM_SEG, SYSTEM_LLAVA
from maskselect.importers.ras_config import refuse_other
from maskselect.lmm.lora import LoraSettings
from maskselect.systems.llmseg import LLMSeg

TOWER_LAYERS = {"openai/clip-vit-large-patch14": 24}
"""Of vision towers that a base config may name."""

CLIP_HEAD = 64
"""Channels of an attention head of every published CLIP."""

MADE = ("model.multi_modal_projector.linear_2.weight", "model.multi_modal_projector.linear_2.bias")
"""Of the LLaVA: the second layer, the identity, of a projector whose release has one."""

_TOWER = LLAVA + "model.vision_tower."


def llava_config(folder: Path, tensors: Mapping[str, Tensor], origin: Path) -> LlavaConfig:
    """The config of the frozen LLaVA in transformers' terms.

    folder: holds the base LLaVA's config.json.  tensors, origin: the release's, and their file.
    Raises FileNotFoundError without config.json, ValueError when it is damaged or a size cannot be told.
    """
    base = _base_config(folder)
    sizes = {
        name: _whole(base, name, folder)
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    text = LlamaConfig(
        vocab_size=_shape(tensors, "model.language_model.embed_tokens.weight", origin)[0],
        num_key_value_heads=int(base.get("num_key_value_heads") or sizes["num_attention_heads"]),
        max_position_embeddings=_whole(base, "max_position_embeddings", folder),
        rms_norm_eps=float(base.get("rms_norm_eps", 1e-6)),
        rope_parameters={"rope_type": "default", "rope_theta": float(base.get("rope_theta", 10_000))},
        tie_word_embeddings=False,
        **sizes,
    )
    width, _, patch, _ = _shape(tensors, "model.vision_tower.embeddings.patch_embedding.weight", origin, 4)
    places, _ = _shape(tensors, "model.vision_tower.embeddings.position_embedding.weight", origin)
    grid = round((places - 1) ** 0.5)
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=_shape(tensors, "model.vision_tower.encoder.layers.0.mlp.fc1.weight", origin)[0],
        num_hidden_layers=_tower_layers(base, tensors),
        num_attention_heads=max(1, width // CLIP_HEAD),
        image_size=grid * patch,
        patch_size=patch,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        projector_hidden_act="linear",
        vision_feature_layer=int(base.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy="default",
        image_token_index=0,  # images are put in as embeddings, so no token stands for one
        image_seq_length=grid * grid,
        tie_word_embeddings=False,
    )


def expected_shapes(config: LlavaConfig, task: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Shapes of all that the release must hold, by our names (see `llm_seg_names.LLAVA`).

    task: the config tree of the LLMSeg that will read it.
    Raises ValueError when it is another system, or one with parts that the release does not have.
    """
    arguments = _arguments(task)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
        parts = _parts(arguments, config.text_config.hidden_size)
    llava = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {LLAVA + name: shape for name, shape in llava.items() if name not in MADE}
    found |= {name: tensor.shape for name, tensor in parts.state_dict().items()}
    found |= _adapters(arguments_of(arguments["lmm"]).get("lora"), llava)
    for name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
        found[SYSTEM_LLAVA + name] = llava[name]
    return found


def _arguments(task: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the system, with its defaults. Raises as `expected_shapes` does."""
    refuse_other(task, LLMSeg)
    defaults = {
        name: one.default
        for name, one in inspect.signature(LLMSeg).parameters.items()
        if one.default is not inspect.Parameter.empty
    }
    arguments = defaults | arguments_of(task)
    wanted = {
        "fusion": True,
        "iou_head": True,
        "iop_head": True,
        "train_embeddings": True,
        "train_projector": False,
        "references": False,
    }
    wrong = [f"{name}: {arguments.get(name)}" for name, value in wanted.items() if arguments.get(name) != value]
    if wrong:
        raise ValueError(f"the config's LLMSeg has {', '.join(wrong)}, of which the release knows nothing")
    return arguments


def _parts(arguments: Mapping[str, Any], width: int) -> nn.Module:
    """All parts of an `LLMSeg` that are learned from nothing. width: of the language model."""
    fused, form = arguments["width"], arguments["head_form"]
    return nn.ModuleDict(
        {
            "text_projection": nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, fused)),
            "mask_conv": nn.Conv2d(bare_encoders(arguments["encoders"]).channels, fused, 1),
            "fusion": MaskFusion(fused, arguments["heads"], arguments["mlp_dim"], arguments["depth"]),
            "iou_head": IouHead(fused, form),
            "iop_head": IopHead(fused, form),
        }
    )


def _adapters(lora: Mapping[str, Any] | None, llava: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """LoRA on the named layers of the language model, as peft calls it within the system."""
    if not lora:
        raise ValueError("the config's language model has no lora, which the release has")
    settings, found = LoraSettings(**lora), {}
    for name, shape in llava.items():
        layer = name.removesuffix(".weight")
        if name.startswith("model.language_model.") and layer.rpartition(".")[2] in settings.targets:
            found[f"{SYSTEM_LLAVA}{layer}.lora_A.default.weight"] = torch.Size((settings.r, shape[1]))
            found[f"{SYSTEM_LLAVA}{layer}.lora_B.default.weight"] = torch.Size((shape[0], settings.r))
    return found


def _base_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; expected the base LLaVA's config.json beside its tokenizer")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no config of a LLaVA")
    return config


def _whole(base: Mapping[str, Any], name: str, folder: Path) -> int:
    value = base.get(name)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{folder / 'config.json'} has {name} {value!r}; expected a whole number from 1")
    return value


def _shape(tensors: Mapping[str, Tensor], own: str, origin: Path, sides: int = 2) -> tuple[int, ...]:
    """Of the release's tensor for a name of the LLaVA. Raises ValueError when it is missing or of another form."""
    foreign = LLM_SEG.foreign(LLAVA + own)
    if foreign not in tensors:
        raise ValueError(f"checkpoint {origin} is not a released LLM-Seg: {foreign} is missing")
    shape = tuple(tensors[foreign].shape)
    if len(shape) != sides:
        raise ValueError(
            f"checkpoint {origin} is not a released LLM-Seg: {foreign} has {len(shape)} sides, not {sides}"
        )
    return shape


def _tower_layers(base: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    known = TOWER_LAYERS.get(str(base.get("mm_vision_tower")))
    if known is not None:
        return known
    names = [
        name for foreign in tensors for name in LLM_SEG.own(foreign) if name.startswith(_TOWER + "encoder.layers.")
    ]
    return 1 + max(int(name.removeprefix(_TOWER + "encoder.layers.").partition(".")[0]) for name in names)
