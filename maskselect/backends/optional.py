"""Packages that not everybody needs: asked for by name, with the command that installs them."""

import importlib
from typing import Any

_PACKAGES = {
    "import": "sentencepiece",
    "qlora": "bitsandbytes",
    "ray": "'ray[data]'",
    "regions": "scikit-image",
    "deepspeed": "deepspeed",
}
"""What each group of optional dependencies in `pyproject.toml` brings."""


def installing(extra: str) -> str:
    """The command that installs a group: in a clone, and elsewhere."""
    return f"make setup EXTRAS={extra} (or pip install {_PACKAGES[extra]})"


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
        raise ValueError(f"{name} is not installed; get it with: {installing(extra)}") from error
