"""Optional packages: errors name the package and the command that installs its extra of `pyproject.toml`."""

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from packaging.requirements import Requirement


def installing(extra: str) -> str:
    """The command that installs an extra, in a clone and elsewhere."""
    return f"make setup EXTRAS={extra} (or pip install 'maskselect[{extra}]')"


def _not_installed(name: str, extra: str) -> str:
    return f"{name} is not installed; get it with: {installing(extra)}"


def require(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: import path.
        extra: the extra of `pyproject.toml` with the package.

    Raises:
        ValueError: the package is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is not None:  # the package itself misses a dependency
            raise
        raise ValueError(_not_installed(package, extra)) from error


class _LazyModule:
    """Stands for an optional module and imports it on use."""

    def __init__(self, module: str, extra: str) -> None:
        self._module, self._extra = module, extra

    def __getattr__(self, name: str) -> Any:
        return getattr(require(self._module, self._extra), name)


def lazy(module: str, extra: str) -> Any:
    """An optional module that is imported on use. Using one of its names raises as `require`."""
    return _LazyModule(module, extra)


def missing_package(error: ModuleNotFoundError) -> str | None:
    """The message for an import that failed because an extra is not installed; None for any other cause.

    The metadata of maskselect lists the packages of each extra.
    """
    name = (error.name or "").partition(".")[0]
    try:
        declared = [Requirement(line) for line in requires("maskselect") or []]
    except PackageNotFoundError:
        return None
    for requirement in declared:
        marker = str(requirement.marker or "")
        if requirement.name == name and "extra ==" in marker:
            return _not_installed(name, marker.partition("extra ==")[2].strip(" \"'"))
    return None
