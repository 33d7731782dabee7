"""Parameters of a system, part by part."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from maskselect.doctor.sketches import Sketched

_PARTS = (
    (r"proposer\.", "proposer"),
    (r"encoders\.encoder_([^.]+)\.", r"encoder \1"),
    (r".*\.lora_", "LoRA"),
    (r".*multi_modal_projector\.|.*visual\.merger\.", "image projector"),
    (r".*vision_tower\.|.*\.visual\.", "vision tower"),
    (r"(?:.*\.)?mask_tokenizer\.", "mask projector"),
    (r".*lm_head\.", "output layer"),
    (r".*language_model\.", "language model"),
    (r"scorer\.decoder\.", "decoder"),
)
"""Beginnings of parameter names, and the part that they belong to; the first that fits."""

_SYSTEM = "reader."
"""A task with parameters of such names is a system; what stands beside its parts are its heads."""


@dataclass
class Part:
    """trained, frozen: parameters.  held: bytes of each dtype, those that train and those that do not together."""

    name: str
    trained: int = 0
    frozen: int = 0
    held: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Parameters, trained or not."""
        return self.trained + self.frozen

    def add(self, parameter: Tensor) -> None:
        """One more tensor."""
        count = parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)  # 4-bit numbers, two in a byte
        if parameter.requires_grad:
            self.trained += count
        else:
            self.frozen += count
        dtype = str(parameter.dtype).removeprefix("torch.")
        self.held[dtype] = self.held.get(dtype, 0) + parameter.nbytes


def named_parameters(sketched: Sketched) -> dict[str, nn.Parameter]:
    """Parameters by name; of parts that do not make a whole, by their place in the config and theirs in the part."""
    if sketched.whole is not None:
        return dict(sketched.whole.named_parameters())
    return {
        f"{'.'.join(place)}.{name}": parameter
        for place, part in sketched.parts.items()
        for name, parameter in part.named_parameters()
    }


def count(parameters: Mapping[str, nn.Parameter]) -> list[Part]:
    """The parts of a system, in the order of their parameters, the proposer first and the heads last.

    Tensors that two parts share are counted with the first. An output layer that shares its weight with the token
    embeddings has none of its own.
    """
    is_system = any(name.startswith(_SYSTEM) for name in parameters)
    parts: dict[str, Part] = {}
    for name, parameter in parameters.items():
        label = part_of(name, is_system)
        parts.setdefault(label, Part(label)).add(parameter)
    known = ["proposer", *sorted(label for label in parts if label.startswith("encoder ")), *_order()]
    return sorted(parts.values(), key=lambda part: known.index(part.name) if part.name in known else len(known))


def part_of(name: str, is_system: bool) -> str:
    """The part that a parameter belongs to."""
    for pattern, label in _PARTS:
        if found := re.match(pattern, name):
            return found.expand(label)
    return "heads" if is_system else name.partition(".")[0]


def total(parts: Iterable[Part]) -> Part:
    """All parts as one."""
    whole = Part("total")
    for part in parts:
        whole.trained += part.trained
        whole.frozen += part.frozen
        for dtype, size in part.held.items():
            whole.held[dtype] = whole.held.get(dtype, 0) + size
    return whole


def _order() -> list[str]:
    return ["vision tower", "image projector", "mask projector", "language model", "LoRA", "output layer", "decoder"]
