"""Configs as files: one, with others laid over it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from maskselect.backends.config_tree import same_class
from maskselect.backends.shipped import shipped_folder
from maskselect.ops.paths import expanded

SHIPPED = shipped_folder("configs")
"""The configs that ship with the package."""

BASE = "laid_over"
"""The setting by which a config names the file that it is laid over, from its own folder."""


def find_config(name_or_path: str | Path) -> Path:
    """The file of a config: a path, or the name of a shipped one.

    `ras`, `ras.yaml`, `configs/ras.yaml` and `paper/ras_13b.yaml` are names. An existing file comes before a name.

    Raises FileNotFoundError when there is neither.
    """
    path = expanded(name_or_path)
    if path.is_file():
        return path
    inner = path.relative_to("configs") if path.parts[:1] == ("configs",) else path
    for shipped in (SHIPPED / inner, SHIPPED / f"{inner}.yaml"):
        if shipped.is_file():
            return shipped
    names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
    raise FileNotFoundError(
        f"config {path} does not exist; expected a YAML file or the name of a shipped one ({names})"
    )


def read_configs(paths: Sequence[str | Path]) -> dict[str, Any]:
    """A config and its overlays, merged as `fit -c A -c B` merges them: later ones win; another class starts anew.

    Raises FileNotFoundError when one is missing, ValueError when one is no YAML of settings by name.
    """
    merged: dict[str, Any] = {}
    for path in with_bases(paths):
        merged = _merged(merged, {k: v for k, v in _read(path).items() if k != BASE})
    return merged


def with_bases(paths: Sequence[str | Path]) -> list[Path]:
    """The files, each behind what it says that it is laid over, which is not repeated.

    Raises as `read_configs` does, and ValueError for files that are laid over each other.
    """
    found: list[Path] = []
    for path in paths:
        found += [file for file in _stack(find_config(path), ()) if file.resolve() not in {f.resolve() for f in found}]
    return found


def _stack(path: Path, above: tuple[Path, ...]) -> list[Path]:
    if path.resolve() in above:
        raise ValueError(f"config {path} is laid over itself")
    base = _read(path).get(BASE)
    return [*([] if base is None else _stack(find_config(path.parent / str(base)), (*above, path.resolve()))), path]


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ValueError(f"config {path} holds no settings by name")
    return config


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    if not same_class(base, over):
        return over
    return base | {key: _merged(base[key], value) if key in base else value for key, value in over.items()}
