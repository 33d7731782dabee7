"""Weights in 4 bits, on which LoRA trains (QLoRA: arXiv 2305.14314), by bitsandbytes."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from maskselect.backends.optional import require

Quantize = Literal["nf4"]


def packing(kind: str | None, kept: Sequence[str]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a language model in 4 bits; none when `kind` is None.

    kept: names of the parts that stay as they are.
    Raises ValueError without the package that quantises.
    """
    if kind is None:
        return {}
    require("bitsandbytes", "qlora")
    from transformers import BitsAndBytesConfig  # noqa: PLC0415  slow, and few models are quantised

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(kept),
    )
    # A GPU packs in seconds what a processor packs in minutes.
    return {"quantization_config": config, "device_map": {"": "cuda" if torch.cuda.is_available() else "cpu"}}


def pack_shapes(network: nn.Module, kept: Sequence[str]) -> None:
    """Give linear layers the shapes that `packing` gives them, two numbers in a byte, where no weights are read."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and not name.startswith(tuple(kept)):
            packed = torch.empty(layer.weight.numel() // 2, 1, dtype=torch.uint8)
            layer.weight = nn.Parameter(packed, requires_grad=False)


def check_quantize(quantize: str | None, model: str | None, lora: object | None) -> None:
    """Raises ValueError where 4 bits are asked for without weights to pack, or without anything that trains on them."""
    if quantize is not None and (model is None or lora is None):
        raise ValueError("quantize freezes the weights of a `model`, on which then `lora` trains; give both")
