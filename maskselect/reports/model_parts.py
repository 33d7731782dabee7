"""What a checkpoint is composed of: each part by its class, the settings that tell its size, and its parameters."""

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
_LANGUAGE_MODEL = "reader.lmm."
"""Where a system's checkpoint holds it."""
_TELLING = (
    "model",
    "model_type",
    "checkpoint",
    "base",
    "image_size",
    "grid",
    "points_per_side",
    "max_candidates",
    "width",
    "layers",
    "heads",
    "r",
)


@dataclass(frozen=True)
class Part:
    """role: what it is for.  made: class and settings.  size: its parameters, in words."""

    role: str
    made: str
    size: str


def read_shapes(file: Path) -> dict[str, list[int]]:
    """Shapes of the tensors of a safetensors file, from its header alone. Raises ValueError when it is damaged."""
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {file} is truncated or not a safetensors file: {error}") from error


def describe_parts(config: Mapping[str, Any], file: Path) -> list[Part]:
    """Candidates, encoders, language model, and what else the checkpoint `file` holds.

    config: of its card.
    """
    top = Node.of(config) or Node("", {})
    parts = []
    for name, role in _ROLES.items():
        for node in _members(top.arguments.get(name)):
            parts.append(Part(role, _told(node), _size_of_named(node)))
    shapes = {name: prod(shape) for name, shape in read_shapes(file).items()}
    spoken = sum(count for name, count in shapes.items() if name.startswith(_LANGUAGE_MODEL))
    rest = sum(shapes.values()) - spoken
    held = f"{_in_words(spoken)} in this checkpoint" if spoken else "none in this checkpoint"
    parts = [Part(p.role, p.made, held) if p.role == _ROLES["lmm"] else p for p in parts]
    return [*parts, Part("mask tokens and heads", f"`{top.name}`", _in_words(rest))]


def _members(part: Any) -> Iterator[Node]:
    """A part, or those that an ensemble joins."""
    node = Node.of(part)
    several = None if node is None else node.arguments.get("encoders")
    if isinstance(several, list):
        for one in several:
            yield from _members(one)
    elif node is not None:
        yield node


def _told(node: Node) -> str:
    """`Class` (settings) of `Inner` (settings)."""
    settings = [*_settings(node.arguments)]
    for value in node.arguments.values():
        if isinstance(value, Mapping) and Node.of(value) is None:
            settings += _settings(value)  # sizes of a compact model, LoRA
    inner = [_told(one) for one in _inner(node)]
    text = f"`{node.name}`"
    text += f" ({', '.join(settings)})" if settings else ""
    return text + (f" of {' and '.join(inner)}" if inner else "")


def _settings(arguments: Mapping[str, Any]) -> Iterator[str]:
    for name in _TELLING:
        value = arguments.get(name)
        if isinstance(value, str | int | float):
            yield f"{name} {str(value).replace(f'{BESIDE}/', '')}"


def _inner(node: Node) -> Iterator[Node]:
    for value in node.arguments.values():
        for one in value if isinstance(value, list) else (value,):
            inner = Node.of(one)
            if inner is not None:
                yield inner


def _size_of_named(node: Node) -> str:
    """Of the shipped checkpoints that a part names, at any depth; others are not looked into."""
    names = dict.fromkeys(_checkpoints(node))
    shipped = [name for name in names if name in shipped_names()]
    told = [f"{_in_words(sum(map(prod, read_shapes(find_checkpoint(n)).values())))} (`{n}`)" for n in shipped]
    return ", ".join(told) if told else "–"


def _checkpoints(node: Node) -> Iterator[str]:
    for one in (node, *walk(node.arguments)):
        if isinstance(one.arguments.get("checkpoint"), str):
            yield one.arguments["checkpoint"]


def _in_words(count: int) -> str:
    """5,935,104 as 5.9 M."""
    for unit, letter in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:.1f}{letter}"
    return str(count)
