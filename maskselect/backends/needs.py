"""What classes need on this machine: published files, checkpoints of our own, and packages."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from maskselect.backends import checkpoints, configs
from maskselect.backends.config_tree import arguments_of
from maskselect.backends.optional import installing
from maskselect.ops.paths import expanded
from maskselect.structures.needs import Arguments, Need

_STARTS = (
    "--model.task.init_args.start NAME (a shipped name, or a .safetensors file), or the language model's own weights: "
    "lmm.init_args.start, base or model"
)
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


def package(module: str, name: str, extra: str) -> list[Need]:
    """An optional package. extra: the group of `pyproject.toml` that brings it."""
    return [] if find_spec(module) else [Need("package", name, installing(extra))]


def quantizing(arguments: Arguments) -> list[Need]:
    """The package that holds a language model in 4 bits, if its arguments ask for that."""
    return package("bitsandbytes", "bitsandbytes", "qlora") if arguments.get("quantize") else []


def random_language_model(arguments: Arguments, also_frozen: str = "") -> list[Need]:
    """Weights of a task's language model that would stay random: they do not train, and no file is named for them.

    Args:
        arguments: of the task, with the language model's config in `lmm` and perhaps a checkpoint in `start`.
        also_frozen: what freezes the language model besides LoRA, "" if nothing does.
    """
    own = arguments_of(arguments.get("lmm"))
    why = "LoRA" if own.get("lora") else also_frozen
    if not why or not own or arguments.get("start") or any(own.get(name) for name in ("start", "base", "model")):
        return []
    return [Need("weights", f"weights of the language model, which {why} leaves as they are", _STARTS, resumable=True)]


def source_of(path: Path) -> str:
    """How a checkpoint, or a folder within an imported release, comes to be."""
    if imported := release_of(path):
        return imported
    made = _commands().get(str(path.parent if path.suffix else path))
    if made is not None:
        return made
    return f"a path, or a shipped name: {', '.join(checkpoints.shipped_names())}"


def release_of(path: Path) -> str | None:
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
