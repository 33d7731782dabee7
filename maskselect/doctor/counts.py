"""Parameters of a system, part by part."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from maskselect.doctor.skeleton import Skeleton
from maskselect.structures.features import FeatureInfo

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

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
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


def named_parameters(skeleton: Skeleton) -> dict[str, nn.Parameter]:
    """Parameters by name, those of objects that are no modules too; of parts by their place in the config."""
    found: dict[str, nn.Parameter] = {}
    known: set[int] = set()
    for place, part in skeleton.parts.items():
        for prefix, module in _modules(part, [_named(place, part)] if place else [], set()):
            for name, parameter in module.named_parameters():
                if id(parameter) not in known:
                    known.add(id(parameter))
                    found[".".join((*prefix, name))] = parameter
    return found


def _named(place: tuple[str, ...], part: Any) -> str:
    """Where a part stands; an encoder of an ensemble under its name, as in the whole system."""
    info = getattr(part, "info", None)
    return f"{place[0]}.encoder_{info.name}" if isinstance(info, FeatureInfo) else ".".join(place)


def _modules(value: Any, prefix: list[str], seen: set[int]) -> Iterator[tuple[list[str], nn.Module]]:
    """The outermost modules that an object holds, and those that a module holds outside of its own submodules."""
    if id(value) in seen:
        return
    seen.add(id(value))
    inner: Mapping[str, Any] = {}
    if isinstance(value, nn.Module):
        yield prefix, value
        inner = {name: one for name, one in vars(value).items() if name not in _OF_EVERY_MODULE}
    elif isinstance(value, Mapping):
        inner = value
    elif isinstance(value, list | tuple):
        inner = {str(number): one for number, one in enumerate(value)}
    elif type(value).__module__.startswith("maskselect."):
        inner = getattr(value, "__dict__", {})
    for name, one in inner.items():
        yield from _modules(one, [*prefix, str(name)], seen)


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
