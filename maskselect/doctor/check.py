"""All that a training run lacks, found before anything of it is built."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskselect.backends.building import find_class
from maskselect.backends.config_tree import Node, arguments_of, walk
from maskselect.backends.hub_cache import offline
from maskselect.doctor.devices import part_needs, trainer_needs
from maskselect.doctor.listing import MissingError, merged
from maskselect.structures.needs import Need, StatesNeeds

_OURS = "maskselect."


def missing(config: Mapping[str, Any]) -> list[Need]:
    """What is not here of all that a config names.

    Args:
        config: as `lightning fit` parses it, without what is None: `model`, `data` and `trainer` with their defaults,
            nothing built. A class that is not ours, or that states no needs, is taken to need nothing.

    Raises:
        ValueError: a name exists nowhere, such as a data set that the catalog does not have.
    """
    found: list[Need] = []
    for node in walk({key: config[key] for key in ("model", "data") if key in config}):
        if node.path.startswith(_OURS):
            made: Any = find_class(node.path)
            found += made.needs(node.arguments) if isinstance(made, StatesNeeds) else []
            found += part_needs(node)
    if config.get("ckpt_path"):
        found = [need for need in found if not need.resumable]
    trainer = config.get("trainer")
    found += trainer_needs(trainer) if isinstance(trainer, Mapping) else []
    return merged(found + _resumed(config.get("ckpt_path")))


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


def refuse_unweighted(config: Mapping[str, Any], verb: str) -> None:
    """Raise ValueError when a verb that trains nothing, such as validate, would run a system of random weights.

    Weights are named by the task's argument `start`; a task without one has those of its language model.
    """
    node = Node.of((config.get("model") or {}).get("task"))
    if config.get("ckpt_path") or node is None:
        return
    own = "start" in inspect.signature(find_class(node.path)).parameters
    lmm = arguments_of(node.arguments.get("lmm"))
    if node.arguments.get("start") or (not own and any(lmm.get(name) for name in ("start", "base", "model"))):
        return
    how = "--ckpt_path RUN/last.ckpt"
    if lmm:
        start = "start" if own else "lmm.init_args.start"
        how += f", or --model.task.init_args.{start} with a shipped name or a .safetensors file"
    raise ValueError(f"{verb} would score random weights: the config names none; name them with {how}")
