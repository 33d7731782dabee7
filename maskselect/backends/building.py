"""Builds objects from a config tree, restricted to classes of this package."""

import importlib
import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from maskselect.backends.config_tree import Arguments, Node, rebuilt, tree
from maskselect.backends.optional import missing_package

BESIDE = "{beside}"
"""Placeholder in the config of a card: the folder of the checkpoint, which may be moved."""


def build(config: Any) -> Any:
    """Instantiate a config tree; other values are returned unchanged.

    Dicts become dataclasses where a class takes dataclasses. `find_class` restricts the classes, so that a foreign card
    cannot run foreign code.

    Raises:
        ValueError: a class does not exist or is not allowed, or a dict does not fit its dataclass.
    """
    return rebuilt(config, make)


def make(node: Node) -> Any:
    """An object of a class whose arguments are built. Raises as `build`."""
    cls = find_class(node.path)
    return cls(**{**node.arguments, **_dataclasses(cls, node.arguments)})


def _dataclasses(cls: type, arguments: Arguments) -> dict[str, Any]:
    """The arguments that are dicts where the class takes a dataclass, as dataclasses.

    Raises ValueError for an unknown field.
    """
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    converted = {}
    for name, value in arguments.items():
        choices = [hints.get(name), *get_args(hints.get(name))]
        kind = next((choice for choice in choices if isinstance(choice, type) and is_dataclass(choice)), None)
        if kind is not None and isinstance(value, dict):
            try:
                converted[name] = kind(**value)
            except TypeError as error:
                raise ValueError(f"{name} of {cls.__name__} does not fit {kind.__name__}: {error}") from error
    return converted


def find_class(path: str) -> type:
    """The class at an import path.

    Only modules of maskselect are imported. A class of another module is allowed if the program has already imported
    the module and the class is a system or a learner.

    Raises:
        ValueError: the class does not exist or is not allowed.
    """
    module_name, _, name = path.rpartition(".")
    if not path.startswith("maskselect."):
        cls = getattr(sys.modules.get(module_name), name, None)
        if isinstance(cls, type) and hasattr(cls, "learned_state") and hasattr(cls, "load_learned"):
            return cls
        raise ValueError(f"class {path!r} is not part of maskselect; refusing to import it")
    try:
        cls = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        missing = missing_package(error) if isinstance(error, ModuleNotFoundError) else None
        raise ValueError(missing or f"class {path!r} does not exist: {error}") from error
    if not isinstance(cls, type):
        raise ValueError(f"class {path!r} is not a class")
    return cls


def on_device(config: Any, device: str) -> Any:
    """A config tree with `device` as argument of every class that takes one."""

    def place(node: Node) -> Any:
        takes_device = "device" in inspect.signature(find_class(node.path)).parameters
        return tree(node.path, {**node.arguments, "device": device} if takes_device else node.arguments)

    return rebuilt(config, place)


def beside(checkpoint: Path, config: Any) -> Any:
    """A config tree from the card of a checkpoint, with `BESIDE` replaced by the folder of the checkpoint."""

    def leaf(value: Any) -> Any:
        return value.replace(BESIDE, str(checkpoint.parent)) if isinstance(value, str) else value

    return rebuilt(config, lambda node: tree(node.path, node.arguments), leaf)
