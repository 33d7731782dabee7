"""Weights that a config would leave random although nothing trains them, or although they are to be scored."""

from collections.abc import Iterator, Mapping
from typing import Any

from maskselect.doctor.needs import Need

_HELP = (
    "--model.task.init_args.start NAME (a shipped name, or a .safetensors file), or the language model's own weights: "
    "lmm.init_args.start, base or model"
)


def untrained(config: Mapping[str, Any]) -> list[Need]:
    """A language model that a run would build with random weights and not train: below LoRA, or frozen altogether.

    config: as `lightning fit` parses it. A run that goes on from a checkpoint (ckpt_path) has the weights from there.
    """
    if config.get("ckpt_path"):
        return []
    return [Need("weights", f"weights of the language model, which {why}", _HELP) for why in _frozen(_task(config))]


def refuse_unweighted(config: Mapping[str, Any], verb: str) -> None:
    """Raise ValueError when a verb that trains nothing, such as validate, would run a system of random weights."""
    task = _task(config)
    if config.get("ckpt_path") or any(_named_starts(task)):
        return
    how = "--ckpt_path RUN/last.ckpt"
    if "lmm" in (task.get("init_args") or {}):
        start = "lmm.init_args.start" if _is_caption_task(task) else "start"
        how += f", or --model.task.init_args.{start} with a shipped name or a .safetensors file"
    raise ValueError(f"{verb} would score random weights: the config names none; name them with {how}")


def _task(config: Mapping[str, Any]) -> Mapping[str, Any]:
    task = (config.get("model") or {}).get("task")
    return task if isinstance(task, Mapping) else {}


def _is_caption_task(task: Mapping[str, Any]) -> bool:
    return str(task.get("class_path", "")).endswith(".CaptionTask")


def _named_starts(task: Mapping[str, Any]) -> Iterator[str]:
    """Checkpoints of all that a task trains: its own start, or that of the language model which it trains alone."""
    arguments = task.get("init_args") or {}
    if arguments.get("start"):
        yield str(arguments["start"])
    if _is_caption_task(task):
        own = (arguments.get("lmm") or {}).get("init_args") or {}
        yield from (str(own[name]) for name in ("start", "base", "model") if own.get(name))


def _frozen(task: Mapping[str, Any]) -> Iterator[str]:
    """Why the language model of a task would stay random; nothing where it trains, or its weights are named."""
    arguments = task.get("init_args") or {}
    lmm = arguments.get("lmm")
    if arguments.get("start") or not isinstance(lmm, Mapping):
        return
    own = lmm.get("init_args") or {}
    if any(own.get(name) for name in ("start", "base", "model")):
        return
    if own.get("lora"):
        yield "LoRA leaves as they are"
    elif arguments.get("scorer") == "decoder":
        yield "scorer decoder leaves as they are"
    elif arguments.get("stage") == 1 and arguments.get("stage_1_trains", "projector") == "projector":
        yield "stage 1 leaves as they are"
