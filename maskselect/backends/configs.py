"""Config files and their overlays."""

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
"""The setting that names the base of an overlay, relative to the folder of the overlay."""


def find_config(name_or_path: str | Path) -> Path:
    """The file of a config, by path or by the name of a shipped config; an existing file takes precedence.

    Names are for example `ras`, `ras.yaml`, `configs/ras.yaml` and `paper/ras_13b.yaml`.

    Raises:
        FileNotFoundError: there is no such file or name.
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
    """Merge a config and its overlays as `fit -c A -c B` does: later values win; another class replaces all arguments.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is not a YAML mapping, or is its own base.
    """
    merged: dict[str, Any] = {}
    for path in with_bases(paths):
        merged = _merged(merged, {k: v for k, v in read_yaml(path).items() if k != BASE})
    return merged


def with_bases(paths: Sequence[str | Path]) -> list[Path]:
    """The files, each after its bases, without repeats. Raises as `read_configs`."""
    files: dict[Path, Path] = {}
    for path in paths:
        for file in _stack(find_config(path), ()):
            files.setdefault(file.resolve(), file)
    return list(files.values())


def _stack(path: Path, above: tuple[Path, ...]) -> list[Path]:
    if path.resolve() in above:
        raise ValueError(f"config {path} is laid over itself")
    base = read_yaml(path).get(BASE)
    return [*([] if base is None else _stack(find_config(path.parent / str(base)), (*above, path.resolve()))), path]


def read_yaml(path: Path, what: str = "config") -> dict[str, Any]:
    """A YAML mapping; `what` names the file in errors. Raises ValueError if the file is anything else."""
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{what} {path} holds no settings by name")
    return config


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict) or not same_class(base, over):
        return over
    return base | {key: _merged(base[key], value) if key in base else value for key, value in over.items()}
