"""The encoders that the paper's configs name: sizes at full scale, and at reduced depth transformers' numbers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from maskselect.encoders.frozen import merged
from maskselect.encoders.timm import TimmEncoder

PAPER = Path(__file__).parents[2] / "configs" / "paper"
CLIP_NORMALISATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3, (0.5,) * 3
DECLARED: dict[tuple[str, str], tuple[int, int, int, Any]] = {
    ("ras_13b.yaml", "clip"): (336, 24, 1024, CLIP_NORMALISATION),
    ("ras_13b.yaml", "convnext"): (1024, 32, 3072, CLIP_NORMALISATION),
    ("ras_13b.yaml", "siglip"): (384, 27, 1152, HALF),
    ("ras_13b.yaml", "dinov2"): (518, 37, 1024, IMAGENET),
    ("overlays/new_encoders.yaml", "siglip"): (512, 32, 1152, HALF),
    ("overlays/new_encoders.yaml", "dinov3"): (512, 32, 1024, IMAGENET),
}
"""Side of the image, of the grid, channels, and normalisation, as published."""


def _told(config: str, name: str) -> dict[str, Any]:
    """Arguments of one encoder of a config, without its weights."""
    encoders = yaml.safe_load((PAPER / config).read_text())["model"]["task"]["init_args"]["encoders"]
    told = next(e["init_args"] for e in encoders["init_args"]["encoders"] if e["init_args"].get("name") == name)
    return told | {"pretrained": False}


@pytest.mark.parametrize(("config", "name"), DECLARED)
def test_full_size_is_as_published(config: str, name: str) -> None:
    side, grid, channels, (mean, std) = DECLARED[config, name]
    with torch.device("meta"):
        encoder = TimmEncoder(**_told(config, name))
        features = merged(encoder.encode(torch.rand(1, 3, side, side))).features
    assert encoder.info.input_size == side and encoder.info.grid == (grid, grid)
    assert features.shape == (1, channels, grid, grid) and encoder.info.channels == channels
    assert encoder.info.mean == mean and encoder.info.std == std


# --- numbers ----------------------------------------------------------------------------------------------------------

VIT_NAMES = [
    (r"^embeddings\.class_embedding$|^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings?(\.projection)?\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$|^embeddings\.position_embeddings$", "pos_embed"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(post_layernorm|layernorm|norm)\.", "norm."),
    (r"^(encoder|model)\.layers?\.", "blocks."),
    (r"\.layer_norm", ".norm"),
    (r"\.(self_attn|attention)\.", ".attn."),
    (r"\.(out|o)_proj\.", ".proj."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
]
CONVNEXT_NAMES = [
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^encoder\.stages\.", "stages."),
    (r"\.downsampling_layer\.", ".downsample."),
    (r"\.layers\.", ".blocks."),
    (r"\.layer_scale_parameter$", ".gamma"),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.layernorm\.", ".norm."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
]


def _in_timms_names(state: dict[str, Tensor], names: list[tuple[str, str]]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for old, tensor in state.items():
        new = old
        for pattern, replacement in names:
            new = re.sub(pattern, replacement, new)
        found[new] = tensor
    for query in [name for name in found if ".q_proj." in name]:
        parts = [found.pop(query.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        found[query.replace("q_proj", "qkv")] = torch.cat(parts)
    return found


def _randomised(model: nn.Module) -> nn.Module:
    """Weights at which every part matters; what is made stays near 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if ("norm" in name and name.endswith("weight")) or "layer_scale" in name:
                parameter.copy_(1 + 0.1 * noise)
            else:
                fan_in = parameter[0].numel() if parameter.dim() > 1 and "embeddings.p" not in name else 1
                parameter.copy_(noise * (fan_in**-0.5 if fan_in > 1 else 0.1))
    return model.eval()


def _clip(images: Tensor, told: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    config = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=3, num_attention_heads=16, image_size=336,
        patch_size=14, hidden_act="quick_gelu",
    )  # fmt: skip
    model = _randomised(CLIPVisionModel(config))
    return model, model(images, output_hidden_states=True).hidden_states[-2][:, 1:]


def _siglip(images: Tensor, told: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    first = told["image_size"] == 384
    # timm, and Cambrian-1 with it, computes the first SigLIP's GELU exactly; transformers has the tanh form, 6e-4 away
    config = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=2, num_attention_heads=16,
        patch_size=14 if first else 16, image_size=told["image_size"],
        hidden_act="gelu" if first else "gelu_pytorch_tanh",
    )  # fmt: skip
    model = _randomised(SiglipVisionModel(config))
    return model, model(images).last_hidden_state


def _dinov2(images: Tensor, told: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    config = Dinov2Config(
        hidden_size=1024, num_hidden_layers=2, num_attention_heads=16, image_size=518, patch_size=14
    )  # fmt: skip
    model = _randomised(Dinov2Model(config))
    return model, model(images).last_hidden_state[:, 1:]


def _dinov3(images: Tensor, told: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    config = DINOv3ViTConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=16, image_size=512,
        num_register_tokens=4, query_bias=False, key_bias=False, value_bias=False,
    )  # fmt: skip
    model = _randomised(DINOv3ViTModel(config))
    return model, model(images).last_hidden_state[:, 5:]


Reference = Callable[[Tensor, dict[str, Any]], tuple[nn.Module, Tensor]]
VITS: list[tuple[str, str, Reference, int]] = [
    ("ras_13b.yaml", "clip", _clip, 3),
    ("ras_13b.yaml", "siglip", _siglip, 2),
    ("ras_13b.yaml", "dinov2", _dinov2, 2),
    ("overlays/new_encoders.yaml", "siglip", _siglip, 2),
    ("overlays/new_encoders.yaml", "dinov3", _dinov3, 2),
]


@torch.no_grad()
@pytest.mark.parametrize(("config", "name", "reference", "depth"), VITS, ids=[f"{c[0]} {c[1]}" for c in VITS])
def test_vits_of_published_width_give_what_transformers_gives(
    config: str, name: str, reference: Reference, depth: int
) -> None:
    told = _told(config, name)
    encoder = TimmEncoder(**told, model_args={"depth": depth})
    image = torch.rand(1, 3, told["image_size"], told["image_size"], generator=torch.Generator().manual_seed(1))
    model, expected = reference(encoder.prepare(image), told)
    state = _in_timms_names(model.state_dict(), VIT_NAMES)
    state = {re.sub(r"layer_scale(\d)\.lambda1", _scale_name(encoder), key): value for key, value in state.items()}
    own = encoder.trunk.state_dict()
    encoder.trunk.load_state_dict({key: state[key].reshape(own[key].shape) for key in own})
    found = merged(encoder.encode(image)).features.flatten(2).transpose(1, 2)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


def _scale_name(encoder: TimmEncoder) -> str:
    return r"ls\1.gamma" if any(".ls1." in key for key in encoder.trunk.state_dict()) else r"gamma_\1"


@torch.no_grad()
def test_convnext_of_published_width_gives_what_transformers_gives() -> None:
    told = _told("ras_13b.yaml", "convnext") | {"image_size": 128}
    encoder = TimmEncoder(**told, model_args={"depths": [1, 1, 1, 1]})
    widths = [384, 768, 1536, 3072]
    model = _randomised(ConvNextModel(ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=widths)))
    state = _in_timms_names(model.state_dict(), CONVNEXT_NAMES)
    own = encoder.trunk.state_dict()
    known = {key: state[key].reshape(own[key].shape) for key in own if key in state}
    assert own.keys() - known.keys() <= {"head.norm.weight", "head.norm.bias"}  # older timm keeps it, unused
    encoder.trunk.load_state_dict(known, strict=False)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    expected = model(encoder.prepare(image)).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(merged(encoder.encode(image)).features, expected, atol=1e-3, rtol=1e-3)
