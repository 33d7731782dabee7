"""Packages that not everybody needs: asked for by name, with the command that installs them."""

import importlib
from typing import Any


def require(module: str, extra: str) -> Any:
    """A module of an optional package.

    extra: the group of `pyproject.toml` that brings it.
    Raises ValueError with the command when it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        name = module.partition(".")[0]
        raise ValueError(f"{name} is not installed; get it with: pip install 'maskselect[{extra}]'") from error
