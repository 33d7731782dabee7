"""Packages that only an extra of `pyproject.toml` brings: errors name the package and the command that installs it."""

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from packaging.requirements import Requirement


def installing(extra: str) -> str:
    """The command that installs an extra: in a clone, and elsewhere."""
    return f"make setup EXTRAS={extra} (or pip install 'maskselect[{extra}]')"


def not_installed(name: str, extra: str) -> str:
    """The sentence that says which package is missing and how to install it."""
    return f"{name} is not installed; get it with: {installing(extra)}"


def require(module: str, extra: str) -> Any:
    """A module of an optional package.

    Args:
        module: import path.
        extra: the extra of `pyproject.toml` that brings it.

    Raises:
        ValueError: the package is not installed; the sentence has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is not None:  # it is there, and lacks something itself
            raise
        raise ValueError(not_installed(package, extra)) from error


class _LazyModule:
    """Stands for an optional module and imports it when the first of its names is used."""

    def __init__(self, module: str, extra: str) -> None:
        self._module, self._extra = module, extra

    def __getattr__(self, name: str) -> Any:
        return getattr(require(self._module, self._extra), name)


def lazy(module: str, extra: str) -> Any:
    """An optional module that is imported on use, so that modules that mention it import without it.

    Using one of its names raises as `require` does.
    """
    return _LazyModule(module, extra)


def missing_package(error: ModuleNotFoundError) -> str | None:
    """The sentence for an import that failed because an extra is not installed; None for any other cause.

    The metadata of the installed package says which extra brings which package, so no second list has to.
    """
    name = (error.name or "").partition(".")[0]
    try:
        declared = [Requirement(line) for line in requires("maskselect") or []]
    except PackageNotFoundError:
        return None
    for requirement in declared:
        marker = str(requirement.marker or "")
        if requirement.name == name and "extra ==" in marker:
            return not_installed(name, marker.partition("extra ==")[2].strip(" \"'"))
    return None
