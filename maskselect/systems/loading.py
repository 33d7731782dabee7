"""A trained system out of its checkpoint."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from maskselect.backends import checkpoints
from maskselect.backends.building import build, find_class
from maskselect.structures.protocols import CandidateSystem
from maskselect.systems.ras import RAS

SYSTEMS = ("ras", "llmseg")
"""Systems that select masks."""

BESIDE = "{beside}"
"""In a card's config: the folder of the checkpoint, which may be moved with all that is in it."""


def load_system(checkpoint: str | Path, device: torch.device | str = "cpu") -> tuple[CandidateSystem, dict[str, Any]]:
    """A system that selects masks, as its card describes it, with its weights; and the card.

    checkpoint: shipped name, file or folder.
    device: where it computes, its proposer too, whichever device the card says that it was trained on.
    Raises FileNotFoundError when there is no such checkpoint, ValueError when it is damaged or of another kind.
    """
    card = checkpoints.read_card(checkpoint)
    if card["system"] not in SYSTEMS:
        known = " or ".join(repr(name) for name in SYSTEMS)
        raise ValueError(
            f"checkpoint {checkpoint} is of system {card['system']!r}; expected one that selects masks: {known}"
        )
    file = checkpoints.find_checkpoint(checkpoint)
    with _in_float32():
        system: Any = build(on_device(_placed(card["config"], str(file.parent)), str(device)))
    if getattr(system, "system", None) != card["system"]:
        raise ValueError(f"checkpoint {checkpoint} describes a {type(system).__name__}; expected {card['system']!r}")
    system.load_learned(checkpoints.read_tensors(file), file)
    return system.to(device), card


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
    if isinstance(config, list):
        return [on_device(value, device) for value in config]
    if not isinstance(config, dict):
        return config
    placed = {key: on_device(value, device) for key, value in config.items()}
    if "class_path" in placed and "device" in inspect.signature(find_class(placed["class_path"])).parameters:
        placed["init_args"] = {**placed.get("init_args", {}), "device": device}
    return placed


def _placed(config: Any, folder: str) -> Any:
    """A config tree with the folder of its checkpoint in it."""
    if isinstance(config, dict):
        return {key: _placed(value, folder) for key, value in config.items()}
    if isinstance(config, list):
        return [_placed(value, folder) for value in config]
    return config.replace(BESIDE, folder) if isinstance(config, str) else config


def load_ras(checkpoint: str | Path) -> tuple[RAS, dict[str, Any]]:
    """`load_system` for a RAS system, on the CPU. Raises ValueError for another one."""
    system, card = load_system(checkpoint)
    if not isinstance(system, RAS):
        raise ValueError(f"checkpoint {checkpoint} is of system {card['system']!r}; expected 'ras'")
    return system, card
