"""The needs of classes: published files, checkpoints of this project, and packages."""

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
    """The need of a published file, with the command that gets it; empty if the file exists."""
    return [] if expanded(path).is_file() else [Need("weights", f"{path}, {what}", command)]


def checkpoint(name: str | Path | None, what: str) -> list[Need]:
    """The need of a checkpoint of this project, by shipped name, file or folder, with its card; empty for None.

    Raises ValueError for a file of another format, such as a pickled one.
    """
    if name is None:
        return []
    try:
        card = checkpoints.find_checkpoint(name).with_suffix(".json")
    except FileNotFoundError:
        return [Need("weights", f"{name}, {what}", source_of(Path(name)))]
    return [] if card.is_file() else [Need("weights", f"{card}, card of {what}", "it is written beside the weights")]


def package(module: str, name: str, extra: str) -> list[Need]:
    """The need of an optional package from the `extra` of `pyproject.toml`; empty if it is installed."""
    return [] if find_spec(module) else [Need("package", name, installing(extra))]


def quantizing(arguments: Arguments) -> list[Need]:
    """The need of the package for 4-bit weights, if the arguments of a language model say so."""
    return package("bitsandbytes", "bitsandbytes", "qlora") if arguments.get("quantize") else []


def random_language_model(arguments: Arguments, also_frozen: str = "") -> list[Need]:
    """The need of weights for a task's language model that is frozen and would stay random.

    Args:
        arguments: arguments of the task, with the language model's config in `lmm` and a checkpoint in `start`, if any.
        also_frozen: what freezes the language model besides LoRA; "" if nothing does.
    """
    model = arguments_of(arguments.get("lmm"))
    cause = "LoRA" if model.get("lora") else also_frozen
    if not cause or not model or arguments.get("start") or any(model.get(name) for name in ("start", "base", "model")):
        return []
    return [Need("weights", f"weights of the language model, which {cause} does not train", _STARTS, resumable=True)]


def source_of(path: Path) -> str:
    """The command that creates a checkpoint, or a folder of an imported release; otherwise the expected values."""
    command = release_of(path) or _commands().get(str(path.parent if path.suffix else path))
    return command or f"a path, or a shipped name: {', '.join(checkpoints.shipped_names())}"


def release_of(path: Path) -> str | None:
    """The commands that create a path in the output folder of `maskselect import llm-seg`; None for other paths."""
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
    """The command in the header of the shipped config that writes to a folder, for each such folder."""
    commands: dict[str, str] = {}
    for config in sorted(configs.SHIPPED.rglob("*.yaml")):
        text = config.read_text()
        output, command = _OUTPUT.search(text), _COMMAND.search(text)
        if output and command:
            commands.setdefault(output[1], command[1].strip())
    return commands
