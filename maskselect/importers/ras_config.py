"""Our config of a RAS as its importer needs it: which features its projector reads, and the card that comes of it."""

import inspect
from collections.abc import Mapping
from typing import Any

from maskselect.backends.config_tree import Node, arguments_of, changed, path_of
from maskselect.importers.bare_encoders import bare_encoders
from maskselect.systems.loading import BESIDE
from maskselect.systems.ras import RAS

ENCODERS = ("clip", "convnext", "siglip", "dinov2", "position")
"""Encoders in the order in which the paper tells them (section 4); the order of their features is not published."""

_WANTED = {"stage": 2, "scorer": "parallel", "pre_tokens": "different", "proposal_score": False, "image_tokens": True}


def ras_task(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config tree of the system in a training config.

    Raises ValueError when there is none, or one of another system, or with parts that the release does not have.
    """
    try:
        task: dict[str, Any] = config["model"]["task"]
        arguments = arguments_of(task)
        lmm, encoders = arguments_of(arguments["lmm"]), arguments_of(arguments["encoders"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the config has no model.task with lmm and encoders by name: {error} is missing") from error
    refuse_other(task, RAS)
    parameters = inspect.signature(RAS).parameters
    given = {name: arguments.get(name, parameters[name].default) for name in _WANTED}
    wrong = [f"{name}: {given[name]}" for name, value in _WANTED.items() if given[name] != value]
    if encoders.get("geometry", True):
        wrong.append("geometry: True")
    if not lmm.get("model"):
        wrong.append("lmm.model: None")
    if wrong:
        raise ValueError(f"the config's RAS has {', '.join(wrong)}, which does not fit the release")
    return task


def card_config(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task with the LLaVA beside its checkpoint, all of it trained already, and nothing to start from."""
    lmm = changed(arguments_of(task)["lmm"], without=("lora", "start", "base"), model=f"{BESIDE}/llava")
    return changed(task, without=("start",), lmm=lmm)


def refuse_other(task: Mapping[str, Any], wanted: type) -> None:
    """Raise ValueError for the config of a task of another class than `wanted`."""
    node = Node.of(task)
    if node is None or node.path != path_of(wanted):
        raise ValueError(f"the config's task is {node and node.path!r}; expected {path_of(wanted)}")


def encoder_channels(task: Mapping[str, Any]) -> dict[str, int]:
    """Channels of each encoder by its name, in the config's order; no weights are read.

    Raises ValueError when the config's encoders cannot be built.
    """
    return {info.name: info.channels for info in bare_encoders(arguments_of(task)["encoders"]).info}


def block_order(channels: Mapping[str, int], told: tuple[str, ...] | None) -> tuple[str, ...]:
    """The encoders in the order of the projector's columns.

    channels: of the config's encoders.  told: the order, where somebody knows it; else that of `ENCODERS`.
    Raises ValueError when names are others than the config's.
    """
    names = ", ".join(channels)
    if told is not None:
        if sorted(told) != sorted(channels):
            raise ValueError(f"the encoder order is {', '.join(told)}; expected each of {names} once")
        return told
    if not set(channels) <= set(ENCODERS):
        raise ValueError(f"the config's encoders are {names}; expected names of {', '.join(ENCODERS)}, or their order")
    return tuple(name for name in ENCODERS if name in channels)
