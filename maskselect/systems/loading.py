"""A trained system out of its checkpoint."""

from pathlib import Path
from typing import Any

from maskselect.backends import checkpoints
from maskselect.backends.building import build
from maskselect.systems.ras import RAS


def load_ras(checkpoint: str | Path) -> tuple[RAS, dict[str, Any]]:
    """A RAS system as its card describes it, with its weights, on the CPU; and the card.

    checkpoint: shipped name, file or folder.
    Raises FileNotFoundError when there is no such checkpoint, ValueError when it is damaged or of another system.
    """
    card = checkpoints.read_card(checkpoint)
    if card["system"] != "ras":
        raise ValueError(
            f"checkpoint {checkpoint} is of system {card['system']!r}; expected one that selects masks: 'ras'"
        )
    system = build(card["config"])
    if not isinstance(system, RAS):
        raise ValueError(f"checkpoint {checkpoint} describes a {type(system).__name__}; expected a RAS system")
    file = checkpoints.find_checkpoint(checkpoint)
    system.load_learned(checkpoints.read_tensors(file), file)
    return system, card
