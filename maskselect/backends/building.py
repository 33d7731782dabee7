"""Building objects from a card's `class_path`/`init_args` tree, restricted to this package's own classes."""

import importlib
from typing import Any


def build(config: Any) -> Any:
    """Instantiate a tree of `{"class_path": ..., "init_args": {...}}`; anything else is returned as it is.

    Only names under `maskselect.` are imported, so a card from elsewhere cannot run foreign code.
    Raises ValueError for any other name, or one that does not exist.
    """
    if isinstance(config, list):
        return [build(item) for item in config]
    if not isinstance(config, dict):
        return config
    if "class_path" not in config:
        return {key: build(value) for key, value in config.items()}
    arguments = {key: build(value) for key, value in config.get("init_args", {}).items()}
    return find_class(config["class_path"])(**arguments)


def find_class(class_path: str) -> type:
    """The class at an import path under `maskselect.`. Raises ValueError for any other name."""
    module_name, _, name = class_path.rpartition(".")
    if not class_path.startswith("maskselect."):
        raise ValueError(f"class_path {class_path!r} is not part of maskselect; refusing to import it")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"class_path {class_path!r} does not exist: {error}") from error
    if not isinstance(found, type):
        raise ValueError(f"class_path {class_path!r} is not a class")
    return found
