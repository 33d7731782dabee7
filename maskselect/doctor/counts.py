"""Parameters of a system, part by part, counted without weights.

The classes of a config are built on the meta device, where tensors have no values. The same code as in training decides
what is trained.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from maskselect.backends.building import make
from maskselect.backends.config_tree import Node, rebuilt
from maskselect.backends.precision import upcast
from maskselect.backends.weightless import weightless
from maskselect.structures.features import FeatureInfo
from maskselect.structures.protocols import Encoder

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
"""Prefixes of parameter names and the parts that they belong to. The first match counts."""
_ORDER = ("vision tower", "image projector", "mask projector", "language model", "LoRA", "output layer", "decoder")

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_ABSENT = object()
"""Stands for an object that could not be built."""


@dataclass
class Skeleton:
    """The objects of a config that could be built on the meta device.

    Args:
        whole: the module at the top of the config; None if it could not be built.
        parts: the largest objects that were built, by their place in the config.
        reasons: why the others could not be built.
    """

    whole: nn.Module | None = None
    parts: dict[tuple[str, ...], Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


@dataclass
class Part:
    """A part of a system: numbers of trained and frozen parameters, and the bytes of each dtype."""

    name: str
    trained: int = 0
    frozen: int = 0
    held: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Number of parameters."""
        return self.trained + self.frozen

    def add(self, parameter: Tensor) -> None:
        """Add a tensor."""
        count = parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)  # 4-bit numbers, two in a byte
        if parameter.requires_grad:
            self.trained += count
        else:
            self.frozen += count
        self.held[str(parameter.dtype).removeprefix("torch.")] += parameter.nbytes


def build_skeleton(config: Mapping[str, Any]) -> Skeleton:
    """Build a config tree on the meta device, as far as sizes are known. Reads only configs and cards.

    Raises:
        ValueError, TypeError: a class refuses its arguments.
    """
    skeleton = Skeleton()

    def build(node: Node) -> Any:
        if _has_absent(node.arguments):
            return _ABSENT
        try:
            if not node.path.startswith("maskselect."):
                raise FileNotFoundError(f"{node.path} is not part of maskselect")
            built = make(node)
        except (FileNotFoundError, NotImplementedError) as error:
            skeleton.reasons.append(" ".join(str(error).split()))
            return _ABSENT
        depth = len(node.keys)
        skeleton.parts = {place: part for place, part in skeleton.parts.items() if place[:depth] != node.keys}
        skeleton.parts[node.keys] = built
        return built

    with weightless():
        top = rebuilt(dict(config), build)
    if isinstance(top, nn.Module):
        skeleton.whole = top
        upcast(top)  # as training does
    return skeleton


def _has_absent(value: Any) -> bool:
    if isinstance(value, Mapping | list):
        return any(_has_absent(one) for one in (value.values() if isinstance(value, Mapping) else value))
    return value is _ABSENT


def named_parameters(skeleton: Skeleton) -> dict[str, nn.Parameter]:
    """All parameters by name, also those held by objects that are no modules.

    Names begin with the place of their part; an encoder stands under its own name, as in the whole system.
    """
    parameters: dict[str, nn.Parameter] = {}
    known: set[int] = set()
    for place, part in skeleton.parts.items():
        top = ".".join(place)
        if place and isinstance(part, Encoder) and isinstance(part.info, FeatureInfo):  # an ensemble has a list of them
            top = f"{place[0]}.encoder_{part.info.name}"
        for prefix, module in _modules(part, [top] if place else [], set()):
            for name, parameter in module.named_parameters():
                if id(parameter) not in known:
                    known.add(id(parameter))
                    parameters[".".join((*prefix, name))] = parameter
    return parameters


def _modules(value: Any, prefix: list[str], visited: set[int]) -> Iterator[tuple[list[str], nn.Module]]:
    """The outermost modules that an object holds, and those that a module holds beside its submodules."""
    if id(value) in visited:
        return
    visited.add(id(value))
    inner: Mapping[str, Any] = {}
    if isinstance(value, nn.Module):
        yield prefix, value
        inner = {name: one for name, one in vars(value).items() if name not in _OF_EVERY_MODULE}
    elif isinstance(value, Mapping):
        inner = value
    elif isinstance(value, list | tuple):
        inner = {str(number): one for number, one in enumerate(value)}
    elif type(value).__module__.startswith("maskselect."):
        inner = vars(value)
    for name, one in inner.items():
        yield from _modules(one, [*prefix, str(name)], visited)


def count(parameters: Mapping[str, nn.Parameter]) -> list[Part]:
    """The parts of a system: the proposer first, the heads last.

    A tensor that two parts share is counted with the first. So an output layer that is tied to the token embeddings is
    no part of its own.
    """
    is_system = any(name.startswith("reader.") for name in parameters)
    parts: dict[str, Part] = {}
    for name, parameter in parameters.items():
        matches = ((re.match(pattern, name), label) for pattern, label in _PARTS)
        label = next((match.expand(label) for match, label in matches if match), None)
        label = label or ("heads" if is_system else name.partition(".")[0])
        parts.setdefault(label, Part(label)).add(parameter)
    order = ["proposer", *sorted(label for label in parts if label.startswith("encoder ")), *_ORDER]
    return sorted(parts.values(), key=lambda part: order.index(part.name) if part.name in order else len(order))


def total(parts: Iterable[Part]) -> Part:
    """The sum of parts."""
    whole = Part("total")
    for part in parts:
        whole.trained += part.trained
        whole.frozen += part.frozen
        whole.held += part.held
    return whole
