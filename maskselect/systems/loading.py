"""Loads a trained system from its checkpoint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from maskselect.backends import building, checkpoints
from maskselect.backends.building import beside, build, find_class, on_device
from maskselect.backends.config_tree import Node, arguments_of
from maskselect.proposers.loading import load_proposer
from maskselect.structures.protocols import Learner, Prompter, System
from maskselect.systems.candidates import refuse_stage_1
from maskselect.systems.proposing import ProposingSystem

BESIDE = building.BESIDE


def load_system(checkpoint: str | Path, device: torch.device | str = "cpu") -> tuple[System, dict[str, Any]]:
    """Load a system that selects masks.

    Args:
        checkpoint: shipped name, file or folder.
        device: device of the system and its proposer; the device in the card's config is ignored.

    Returns:
        The system with its weights, and its card.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it is damaged or of another kind.
    """
    card = checkpoints.read_card(checkpoint)
    check_system(card, checkpoint)
    file = checkpoints.find_checkpoint(checkpoint)
    with in_float32():
        system = build(on_device(beside(file, card["config"]), str(device)))
    if not isinstance(system, System) or not isinstance(system, Learner) or system.name != card["system"]:
        raise ValueError(f"checkpoint {checkpoint} describes a {type(system).__name__}; expected {card['system']!r}")
    system.load_learned(checkpoints.read_tensors(file), file)
    cast(nn.Module, system).to(device)
    return system, card


def default_prompter(system: System, device: str) -> Prompter | None:
    """The prompter for boxes and points: the proposer of a system that has one, else the shipped compact SAM.

    None for a system whose proposer accepts neither; its references must be masks.
    """
    if isinstance(system, ProposingSystem):
        return system.prompter
    return cast(Prompter, load_proposer("sam", device))


def check_answers_prompts(card: Mapping[str, Any], checkpoint: str | Path) -> None:
    """Raise ValueError if a checkpoint holds no system, or one of stage 1, which answers no prompts.

    Args:
        card: of the checkpoint.
        checkpoint: its name or path, for errors.
    """
    check_system(card, checkpoint)
    if arguments_of(card["config"]).get("stage") == 1:
        refuse_stage_1(f"checkpoint {checkpoint}")


def check_system(card: Mapping[str, Any], checkpoint: str | Path) -> None:
    """Raise ValueError if a checkpoint holds something other than a system; the arguments are the same."""
    node = Node.of(card.get("config"))
    kind = type(None) if node is None else find_class(node.path)
    if not (hasattr(kind, "read") and hasattr(kind, "answer")):
        raise ValueError(
            f"checkpoint {checkpoint} is of system {card['system']!r}; expected one that selects masks, as ras does"
        )


@contextmanager
def in_float32() -> Iterator[None]:
    """Build networks in float32, whatever default dtype the caller has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
