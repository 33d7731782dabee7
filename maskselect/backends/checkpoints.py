"""Checkpoints on disk: a safetensors file with a JSON card of the same stem beside it. Nothing is ever unpickled.

A card holds `system` (for example "ras" or "sam"), `config` (a config tree), `data_seed`, `commit`, `metrics`, and
further fields. Tensors are stored in half precision and loaded as float32.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskselect.backends.shipped import shipped_folder
from maskselect.backends.weightless import reads_weights
from maskselect.ops.atomic import atomic_files, write_text
from maskselect.ops.paths import expanded

_SHIPPED = shipped_folder("checkpoints")
_PICKLED = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}


def shipped_names() -> list[str]:
    """Names of the shipped checkpoints."""
    return sorted(path.stem for path in _SHIPPED.glob("*.safetensors"))


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The safetensors file of a shipped name, a path, or a folder with exactly one such file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another format.
    """
    path = expanded(name_or_path)
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise FileNotFoundError(f"checkpoint folder {path} holds {len(files)} .safetensors files; expected one")
        return files[0]
    if path.is_file():
        if path.suffix != ".safetensors":
            hint = "a pickled checkpoint, which could run code" if path.suffix in _PICKLED else "of another format"
            raise ValueError(f"checkpoint {path} is {hint}; expected a .safetensors file with its .json card")
        return path
    shipped = _SHIPPED / f"{path}.safetensors"
    if path.parent == Path() and shipped.is_file():
        return shipped
    known = ", ".join(shipped_names()) or "none yet"
    raise FileNotFoundError(f"checkpoint {str(name_or_path)!r} not found; expected a path or a shipped name ({known})")


def read_card(name_or_path: str | Path, system: str | None = None) -> dict[str, Any]:
    """The JSON card of a checkpoint.

    Raises:
        FileNotFoundError: the checkpoint or its card does not exist.
        ValueError: the card is damaged, or its system is not `system`.
    """
    checkpoint = find_checkpoint(name_or_path)
    path = checkpoint.with_suffix(".json")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint card {path} is missing; expected it beside the .safetensors file")
    try:
        card = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"checkpoint card {path} is not valid JSON: {error}") from error
    if not isinstance(card, dict) or "system" not in card:
        raise ValueError(f"checkpoint card {path} has no 'system' field; was it written by maskselect?")
    if system is not None and card["system"] != system:
        raise ValueError(f"checkpoint {checkpoint} is of system {card['system']!r}; expected {system!r}")
    return card


def read_tensors(name_or_path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, floating ones as float32. Raises ValueError if the file is damaged."""
    path = find_checkpoint(name_or_path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {path} is truncated or not a safetensors file: {error}") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def write_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], card: dict[str, Any], stored: torch.dtype | None = torch.float16
) -> None:
    """Write tensors and card atomically.

    Args:
        path: of the safetensors file; its folder is created.
        tensors: by name.
        card: fields of the card; `commit` is added.
        stored: dtype of floating tensors in the file; None keeps the dtype of each.

    Raises:
        ValueError: a value does not fit into `stored`, or the card has no `system`.
    """
    if "system" not in card:
        raise ValueError("a checkpoint card needs a 'system' field")
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if value.is_floating_point() and stored is not None:
            value = value.to(stored)
            if not torch.isfinite(value).all():
                raise ValueError(f"tensor {name!r} has values that {str(stored).removeprefix('torch.')} cannot hold")
        converted[name] = value.contiguous().clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files(path, path.with_suffix(".json"), durable=True) as (part, card_part):
        save_file(converted, part)
        card_part.write_text(_card_text({"commit": current_commit(), **card}))


def change_card(name_or_path: str | Path, fields: Mapping[str, Any]) -> Path:
    """Set fields of a card and return its path. Raises as `read_card`."""
    path = find_checkpoint(name_or_path).with_suffix(".json")
    write_text(path, _card_text(read_card(name_or_path) | dict(fields)), durable=True)
    return path


def _card_text(card: Mapping[str, Any]) -> str:
    return json.dumps(card, indent=1) + "\n"


def average_checkpoints(paths: Sequence[Path], output: Path) -> None:
    """Write the mean of every tensor of several checkpoints of one system, with the card of the last one.

    The card has no metrics, because those of the parts do not hold for the mean. It keeps the threshold of the last.

    Raises:
        ValueError: the systems differ, or tensors differ in name or shape.
    """
    cards, parts = [read_card(path) for path in paths], [read_tensors(path) for path in paths]
    for path, card, part in zip(paths, cards, parts, strict=True):
        if card.get("system") != cards[0].get("system"):
            raise ValueError(f"{path} is of system {card.get('system')}, but {paths[0]} of {cards[0].get('system')}")
        if {k: v.shape for k, v in part.items()} != {k: v.shape for k, v in parts[0].items()}:
            raise ValueError(f"{path} holds other tensors than {paths[0]}; expected the same names and shapes")
    mean = {
        name: torch.stack([part[name] for part in parts]).float().mean(0).to(v.dtype) for name, v in parts[0].items()
    }
    kept = {k: v for k, v in cards[-1].items() if k != "metrics"}
    write_checkpoint(output, mean, kept | {"average_of": [str(path) for path in paths]})


def load_into(module: nn.Module, name_or_path: str | Path, system: str) -> None:
    """Load a checkpoint of `system` strictly into a module. It does nothing within `weightless`.

    Raises:
        ValueError: the card has another system, or a tensor is missing, unknown or of another shape.
    """
    if not reads_weights():
        return
    read_card(name_or_path, system)
    load_strictly(module, read_tensors(name_or_path), str(find_checkpoint(name_or_path)))


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """`load_state_dict(strict=True)` with a short error. `origin` names the file in it."""
    check_fit(module.state_dict(), tensors, origin, type(module).__name__)
    module.load_state_dict(dict(tensors))


def check_fit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], origin: str, what: str) -> None:
    """Raise ValueError if `tensors` of the file `origin` differ in name or shape from the `expected` ones of `what`."""
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    differ = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    if missing or unknown or differ:
        raise ValueError(
            f"checkpoint {origin} does not fit {what}: {len(missing)} missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}, {len(differ)} of another shape {differ[:3]}"
        )


def current_commit() -> str:
    """Short hash of HEAD, or "unknown" outside a repository."""
    command = ["git", "-C", str(_SHIPPED), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
