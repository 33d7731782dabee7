"""What a training run lacks, checked before any of it is built."""

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


def missing(config: Mapping[str, Any]) -> list[Need]:
    """Everything that a config names and this machine lacks. Nothing is built.

    Args:
        config: `model`, `data` and `trainer` as `lightning fit` parses them, without entries that are None. A class
            that is not ours, or that states no needs, is taken to need nothing.

    Raises:
        ValueError: a name exists nowhere, such as an unknown data set.
    """
    needs: list[Need] = []
    for node in walk({key: config[key] for key in ("model", "data") if key in config}):
        if not node.path.startswith("maskselect."):
            continue
        kind: object = find_class(node.path)
        needs += kind.needs(node.arguments) if isinstance(kind, StatesNeeds) else []
        needs += part_needs(node)
    path = str(config.get("ckpt_path") or "")
    if path:
        needs = [need for need in needs if not need.resumable]
    trainer = config.get("trainer")
    needs += trainer_needs(trainer) if isinstance(trainer, Mapping) else []
    if path.endswith(".ckpt") and "://" not in path and not Path(path).exists():  # else a URL, or a word of Lightning's
        what = f"{path}, the checkpoint to resume from (ckpt_path)"
        needs.append(Need("weights", what, "leave it out to start from the beginning"))
    return merged(needs)


def refuse_missing(config: Mapping[str, Any]) -> None:
    """Check a run before it is built. What will be downloaded is named on standard error.

    Raises:
        MissingError: the run lacks something that cannot be downloaded, or there is no network.
    """
    needs = missing(config)
    if any(not need.fetched or offline() for need in needs):
        raise MissingError(needs)
    for need in needs:
        print(f"{need.what}: not here yet, fetched now, where there is a network ({need.help})", file=sys.stderr)


def refuse_unweighted(config: Mapping[str, Any], verb: str) -> None:
    """Refuse to run a system of random weights in a verb that trains nothing, such as validate.

    The task's argument `start` names the weights; a task without it has those of its language model.

    Raises:
        ValueError: the config names no weights.
    """
    node = Node.of((config.get("model") or {}).get("task"))
    if config.get("ckpt_path") or node is None:
        return
    takes_start = "start" in inspect.signature(find_class(node.path)).parameters
    lmm = arguments_of(node.arguments.get("lmm"))
    if node.arguments.get("start") or (not takes_start and any(lmm.get(name) for name in ("start", "base", "model"))):
        return
    how = "--ckpt_path RUN/last.ckpt"
    if lmm:
        start = "start" if takes_start else "lmm.init_args.start"
        how += f", or --model.task.init_args.{start} with a shipped name or a .safetensors file"
    raise ValueError(f"{verb} would score random weights: the config names none; name them with {how}")
