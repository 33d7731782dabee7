"""The parts of a checkpoint: class, telling settings and number of parameters of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from maskselect.backends.checkpoints import find_checkpoint, shipped_names
from maskselect.backends.config_tree import Node, walk
from maskselect.systems.loading import BESIDE

_ROLES = {"proposer": "candidates", "encoders": "encoder", "lmm": "language model"}
_LANGUAGE_MODEL = ("reader.lmm.", "verifier.lmm.")
"""Prefix of the language model's tensors in a system's checkpoint."""
_SETTINGS = (
    "model", "model_type", "checkpoint", "base", "image_size", "grid", "points_per_side", "max_candidates", "width",
    "layers", "heads", "r",
)  # fmt: skip
"""Arguments that are shown."""


@dataclass(frozen=True)
class Part:
    """A part of a system: its role, its class with settings, and its number of parameters in words."""

    role: str
    made: str
    size: str


def read_shapes(file: Path) -> dict[str, list[int]]:
    """Shapes of the tensors of a safetensors file, from its header alone. Raises ValueError if it is damaged."""
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {file} is truncated or not a safetensors file: {error}") from error


def describe_parts(config: Mapping[str, Any], file: Path) -> list[Part]:
    """Candidates, encoders, language model and heads of the checkpoint `file`, whose card has `config`."""
    top = Node.of(config) or Node("", {})
    shapes = {name: prod(shape) for name, shape in read_shapes(file).items()}
    lmm = sum(count for name, count in shapes.items() if name.startswith(_LANGUAGE_MODEL))
    parts = []
    for name, role in _ROLES.items():
        for node in _members(top.arguments.get(name)):
            size = _shipped_size(node)
            if name == "lmm":
                size = f"{_in_words(lmm)} in this checkpoint" if lmm else "none in this checkpoint"
            parts.append(Part(role, _describe(node), size))
    return [*parts, Part("mask tokens and heads", f"`{top.name}`", _in_words(sum(shapes.values()) - lmm))]


def _members(part: Any) -> Iterator[Node]:
    """A part, or the members of an ensemble."""
    node = Node.of(part)
    members = None if node is None else node.arguments.get("encoders")
    if isinstance(members, list):
        for one in members:
            yield from _members(one)
    elif node is not None:
        yield node


def _describe(node: Node) -> str:
    """`Class` (settings) of `Inner` (settings)."""
    settings, inner = [*_settings(node.arguments)], []
    for value in node.arguments.values():
        if isinstance(value, Mapping) and Node.of(value) is None:
            settings += _settings(value)  # sizes of a compact model, LoRA
        nodes = map(Node.of, value if isinstance(value, list) else [value])
        inner += [_describe(one) for one in nodes if one is not None]
    text = f"`{node.name}`" + (f" ({', '.join(settings)})" if settings else "")
    return text + (f" of {' and '.join(inner)}" if inner else "")


def _settings(arguments: Mapping[str, Any]) -> Iterator[str]:
    for name in _SETTINGS:
        value = arguments.get(name)
        if isinstance(value, str | int | float):
            yield f"{name} {str(value).replace(f'{BESIDE}/', '')}"


def _shipped_size(node: Node) -> str:
    """Parameters of the shipped checkpoints that a part names at any depth; a dash without one."""
    names = dict.fromkeys(str(one.arguments.get("checkpoint")) for one in (node, *walk(node.arguments)))
    shipped = [name for name in names if name in shipped_names()]
    sizes = [f"{_in_words(sum(map(prod, read_shapes(find_checkpoint(n)).values())))} (`{n}`)" for n in shipped]
    return ", ".join(sizes) or "–"


def _in_words(count: int) -> str:
    """5,935,104 as 5.9 M."""
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)
