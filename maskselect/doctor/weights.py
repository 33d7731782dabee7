"""Weights that must lie on this machine: published files, and checkpoints of our own."""

import re
from functools import cache
from pathlib import Path

from maskselect.backends import checkpoints, configs
from maskselect.backends.cache import expanded
from maskselect.doctor.needs import Need

_OUTPUT = re.compile(r"^output: *(\S+)", re.MULTILINE)
_COMMAND = re.compile(r"^# +(lightning fit .*?)\\?$", re.MULTILINE)


def file(path: str | Path, what: str, command: str) -> list[Need]:
    """A published file, and the command that gets it."""
    return [] if expanded(path).is_file() else [Need("weights", f"{path}, {what}", command)]


def checkpoint(name: str | Path | None, what: str) -> list[Need]:
    """A checkpoint of ours, by shipped name, file or folder, with its card; None needs nothing.

    Raises ValueError for a file of another kind, such as a pickled one.
    """
    if name is None:
        return []
    try:
        found = checkpoints.find_checkpoint(name)
    except FileNotFoundError:
        return [Need("weights", f"{name}, {what}", source_of(Path(name)))]
    if found.with_suffix(".json").is_file():
        return []
    return [Need("weights", f"{found.with_suffix('.json')}, card of {what}", "it is written beside the weights")]


def source_of(path: Path) -> str:
    """How a checkpoint, or a folder within an imported release, comes to be."""
    if imported := _release(path):
        return imported
    made = _commands().get(str(path.parent if path.suffix else path))
    if made is not None:
        return made
    return f"a path, or a shipped name: {', '.join(checkpoints.shipped_names())}"


def _release(path: Path) -> str | None:
    """The commands for what `maskselect import llm-seg` writes, if the path lies in a folder of that name."""
    if "llm-seg" not in path.parts:
        return None
    folder = Path(*path.parts[: path.parts.index("llm-seg") + 1])
    return (
        "hf download JCdesu/LLM-Seg-deepspeed --exclude '*optim_states.pt' --local-dir SRC\n"
        "hf download liuhaotian/LLaVA-Lightning-7B-delta-v1-1 --exclude '*.bin' --local-dir BASE\n"
        f"maskselect import llm-seg SRC {folder} --tokenizer BASE"
    )


@cache
def _commands() -> dict[str, str]:
    """For each folder that a config of the repository writes to, the command at the config's head."""
    found: dict[str, str] = {}
    for config in sorted(configs.SHIPPED.rglob("*.yaml")):
        text = config.read_text()
        output, command = _OUTPUT.search(text), _COMMAND.search(text)
        if output and command:
            found.setdefault(output[1], command[1].strip())
    return found
