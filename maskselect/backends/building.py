"""Building objects from a config tree, restricted to this package's own classes."""

import importlib
import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from maskselect.backends.config_tree import Arguments, Node, rebuilt, tree
from maskselect.backends.optional import missing_package

BESIDE = "{beside}"
"""In a card's config: the folder of the checkpoint, which may be moved with all that is in it."""


def build(config: Any) -> Any:
    """Instantiate a config tree; anything else is returned as it is.

    Settings that a class takes as a dataclass may be given as a dict, as in a config.

    See `find_class` for which classes: a card from elsewhere cannot run foreign code.
    Raises ValueError for any other name, or one that does not exist.
    """
    return rebuilt(config, make)


def make(node: Node) -> Any:
    """An object of a class whose arguments are built already. Raises as `build` does."""
    made = find_class(node.path)
    return made(**{**node.arguments, **_settings(made, node.arguments)})


def _settings(made: type, arguments: Arguments) -> dict[str, Any]:
    """Those arguments that are plain dicts where the class wants a dataclass, as that.

    Raises ValueError for a field that it does not have.
    """
    wanted = get_type_hints(made.__init__)  # type: ignore[misc]
    found = {}
    for name, value in arguments.items():
        choices = [wanted.get(name), *get_args(wanted.get(name))]
        kind = next((choice for choice in choices if isinstance(choice, type) and is_dataclass(choice)), None)
        if kind is not None and isinstance(value, dict):
            try:
                found[name] = kind(**value)
            except TypeError as error:
                raise ValueError(f"{name} of {made.__name__} does not fit {kind.__name__}: {error}") from error
    return found


def find_class(path: str) -> type:
    """The class at an import path.

    Modules of maskselect are imported. Of any other module, which could be anybody's, a class is taken only if the
    program has imported the module itself and the class is a system or a learner.

    Raises:
        ValueError: for any other name.
    """
    module_name, _, name = path.rpartition(".")
    if not path.startswith("maskselect."):
        known = getattr(sys.modules.get(module_name), name, None)
        if isinstance(known, type) and hasattr(known, "learned_state") and hasattr(known, "load_learned"):
            return known
        raise ValueError(f"class {path!r} is not part of maskselect; refusing to import it")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        missing = missing_package(error) if isinstance(error, ModuleNotFoundError) else None
        raise ValueError(missing or f"class {path!r} does not exist: {error}") from error
    if not isinstance(found, type):
        raise ValueError(f"class {path!r} is not a class")
    return found


def on_device(config: Any, device: str) -> Any:
    """A config tree whose classes that choose a device choose this one."""

    def placed(node: Node) -> Any:
        takes = "device" in inspect.signature(find_class(node.path)).parameters
        return tree(node.path, {**node.arguments, "device": device} if takes else node.arguments)

    return rebuilt(config, placed)


def beside(checkpoint: Path, config: Any) -> Any:
    """A config tree out of a checkpoint's card, with the folder of the checkpoint in it."""

    def leaf(value: Any) -> Any:
        return value.replace(BESIDE, str(checkpoint.parent)) if isinstance(value, str) else value

    return rebuilt(config, lambda node: tree(node.path, node.arguments), leaf)
