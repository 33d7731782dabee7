"""All that a training run lacks, found before anything of it is built."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskselect.doctor.classes import NEEDS
from maskselect.doctor.devices import part_needs, trainer_needs
from maskselect.doctor.hub_cache import offline
from maskselect.doctor.needs import MissingError, Need, merged, walk
from maskselect.doctor.starts import untrained

_OURS = "maskselect."


def missing(config: Mapping[str, Any]) -> list[Need]:
    """What is not here of all that a config names.

    config: as `lightning fit` parses it: `model`, `data`, `trainer` with their defaults, nothing built.
    A class that is not ours, or that nobody told `doctor/classes.py` about, is taken to need nothing.
    Raises ValueError for names that exist nowhere, such as a data set that the catalog does not have.
    """
    found: list[Need] = []
    for node in walk({key: config[key] for key in ("model", "data") if key in config}):
        found += NEEDS[node.path](node.arguments) if node.path in NEEDS else []
        found += part_needs(node) if node.path.startswith(_OURS) else []
    trainer = config.get("trainer")
    found += trainer_needs(trainer) if isinstance(trainer, Mapping) else []
    return merged(found + untrained(config) + _resumed(config.get("ckpt_path")))


def unknown(config: Mapping[str, Any]) -> list[str]:
    """Import paths of our own classes of which `doctor/classes.py` does not know what they need."""
    paths = (node.path for node in walk(config))
    return sorted({path for path in paths if path.startswith(_OURS) and path not in NEEDS})


def refuse_missing(config: Mapping[str, Any]) -> None:
    """Before a run is built: raises MissingError when it lacks something that will not come by itself.

    What comes by itself, where there is a network, is told on standard error when nothing else is missing.
    """
    found = missing(config)
    if any(not need.fetched or offline() for need in found):
        raise MissingError(found)
    for need in found:
        print(f"{need.what}: not here yet, fetched now, where there is a network ({need.help})", file=sys.stderr)


def _resumed(path: Any) -> list[Need]:
    """A checkpoint to go on from; Lightning's own words for one, and addresses, are not looked up."""
    name = str(path or "")
    if not name.endswith(".ckpt") or "://" in name or Path(name).exists():
        return []
    return [Need("weights", f"{name}, the checkpoint to go on from (ckpt_path)", "leave it out to begin anew")]
