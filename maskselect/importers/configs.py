"""Our own configs as an importer needs them: one, with others laid over it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"
"""Configs of published sizes, in the repository."""


def read_configs(paths: Sequence[Path]) -> dict[str, Any]:
    """A config and its overlays, merged as `fit -c A -c B` merges them: later ones win; another class starts anew.

    Raises FileNotFoundError when one is missing, ValueError when one is no YAML of settings by name.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"config {path} does not exist; give one of the repository's configs/paper")
        try:
            config = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(config, dict):
            raise ValueError(f"config {path} holds no settings by name")
        merged = _merged(merged, config)
    return merged


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    if base.get("class_path") != over.get("class_path", base.get("class_path")):
        return over
    return base | {key: _merged(base[key], value) if key in base else value for key, value in over.items()}
