"""A trained system out of its checkpoint."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from maskselect.backends import checkpoints
from maskselect.backends.building import build, find_class
from maskselect.backends.config_tree import Node, rebuilt, tree
from maskselect.proposers.loading import load_proposer
from maskselect.structures.protocols import Learner, Prompter, System
from maskselect.systems.candidates import CandidateSystem

BESIDE = "{beside}"
"""In a card's config: the folder of the checkpoint, which may be moved with all that is in it."""


def load_system(checkpoint: str | Path, device: torch.device | str = "cpu") -> tuple[System, dict[str, Any]]:
    """A system that selects masks, as its card describes it, with its weights; and the card.

    checkpoint: shipped name, file or folder.
    device: where it computes, its proposer too, whichever device the card says that it was trained on.
    Raises FileNotFoundError when there is no such checkpoint, ValueError when it is damaged or of another kind.
    """
    card = checkpoints.read_card(checkpoint)
    answering_class(card, checkpoint)
    file = checkpoints.find_checkpoint(checkpoint)
    with _in_float32():
        system = build(on_device(_placed(card["config"], str(file.parent)), str(device)))
    if not isinstance(system, System) or not isinstance(system, Learner) or system.name != card["system"]:
        raise ValueError(f"checkpoint {checkpoint} describes a {type(system).__name__}; expected {card['system']!r}")
    system.load_learned(checkpoints.read_tensors(file), file)
    cast(nn.Module, system).to(device)
    return system, card


def default_prompter(system: System, device: str) -> Prompter | None:
    """What turns boxes and points into reference masks: a candidate system's proposer, else the shipped compact SAM.

    None for a candidate system whose proposer takes neither; its references must be masks.
    """
    if isinstance(system, CandidateSystem):
        return system.prompter
    return cast(Prompter, load_proposer("sam", device)[0])


def answering_class(card: Mapping[str, Any], checkpoint: str | Path) -> type:
    """The class of a card's system. Raises ValueError for one that answers no prompts; `checkpoint` names the file."""
    node = Node.of(card.get("config"))
    kind = type(None) if node is None else find_class(node.path)
    if not (hasattr(kind, "read") and hasattr(kind, "answer")):
        raise ValueError(
            f"checkpoint {checkpoint} is of system {card['system']!r}; expected one that selects masks, as ras does"
        )
    return kind


@contextmanager
def _in_float32() -> Iterator[None]:
    """Networks are made in the dtype that is the default at that time; what answers must not depend on a caller's."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def on_device(config: Any, device: str) -> Any:
    """A config tree whose classes that choose a device choose this one."""

    def placed(node: Node) -> Any:
        takes = "device" in inspect.signature(find_class(node.path)).parameters
        return tree(node.path, {**node.arguments, "device": device} if takes else node.arguments)

    return rebuilt(config, placed)


def _placed(config: Any, folder: str) -> Any:
    """A config tree with the folder of its checkpoint in it."""

    def leaf(value: Any) -> Any:
        return value.replace(BESIDE, folder) if isinstance(value, str) else value

    return rebuilt(config, lambda node: tree(node.path, node.arguments), leaf)
