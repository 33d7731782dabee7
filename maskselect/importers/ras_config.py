"""Our config of a RAS as its importer needs it: which features its projector reads, and the card that comes of it."""

import inspect
from collections.abc import Mapping
from typing import Any

from maskselect.importers.bare_encoders import bare_encoders
from maskselect.systems.loading import BESIDE
from maskselect.systems.ras import RAS

ENCODERS = ("clip", "convnext", "siglip", "dinov2", "position")
"""Encoders in the order in which the paper tells them (section 4); the order of their features is not published."""

_WANTED = {"stage": 2, "scorer": "parallel", "pre_tokens": "different", "proposal_score": False, "image_tokens": True}


def ras_task(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `class_path`/`init_args` tree of the system in a training config.

    Raises ValueError when there is none, or one of another system, or with parts that the release does not have.
    """
    try:
        task: dict[str, Any] = config["model"]["task"]
        lmm = task["init_args"]["lmm"]["init_args"]
        encoders = task["init_args"]["encoders"]["init_args"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the config has no model.task with lmm and encoders by name: {error} is missing") from error
    if task.get("class_path") != f"{RAS.__module__}.{RAS.__name__}":
        raise ValueError(f"the config's task is {task.get('class_path')!r}; expected {RAS.__module__}.{RAS.__name__}")
    parameters = inspect.signature(RAS).parameters
    given = {name: task["init_args"].get(name, parameters[name].default) for name in _WANTED}
    wrong = [f"{name}: {given[name]}" for name, value in _WANTED.items() if given[name] != value]
    if encoders.get("geometry", True):
        wrong.append("geometry: True")
    if not isinstance(lmm, dict) or not lmm.get("model"):
        wrong.append("lmm.model: None")
    if wrong:
        raise ValueError(f"the config's RAS has {', '.join(wrong)}, which does not fit the release")
    return task


def card_config(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task with the LLaVA beside its checkpoint, all of it trained already, and nothing to start from."""
    arguments = {name: value for name, value in task["init_args"].items() if name != "start"}
    lmm = arguments["lmm"]
    kept = {name: value for name, value in lmm["init_args"].items() if name not in ("lora", "start", "base")}
    return {**task, "init_args": {**arguments, "lmm": {**lmm, "init_args": kept | {"model": f"{BESIDE}/llava"}}}}


def encoder_channels(task: Mapping[str, Any]) -> dict[str, int]:
    """Channels of each encoder by its name, in the config's order; no weights are read.

    Raises ValueError when the config's encoders cannot be built.
    """
    return {info.name: info.channels for info in bare_encoders(task["init_args"]["encoders"]).info}


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
