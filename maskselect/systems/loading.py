"""A trained system out of its checkpoint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from maskselect.backends import building, checkpoints
from maskselect.backends.building import beside, build, find_class, on_device
from maskselect.backends.config_tree import Node
from maskselect.proposers.loading import load_proposer
from maskselect.structures.protocols import Learner, Prompter, System
from maskselect.systems.candidates import CandidateSystem

BESIDE = building.BESIDE


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
        system = build(on_device(beside(file, card["config"]), str(device)))
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
    return cast(Prompter, load_proposer("sam", device))


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
