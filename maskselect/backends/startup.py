"""A quick start for commands: torch's compiler stays unloaded while libraries only mention it.

Importing torchvision and transformers imports `torch._dynamo` and `torch.distributed.tensor`: a quarter of the time
from command to answer, for decorators that say what a compiler should leave alone. A command that compiles nothing and
runs in one process can do without.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from torch import distributed

_MARKS = ("disable", "assume_constant_result", "allow_in_graph", "disallow_in_graph", "forbid_in_graph")
_PACKAGE = "torch._dynamo"
_UTILS = "torch._dynamo.utils"


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator, with or without arguments, that leaves what it decorates as it is."""
    return function if callable(function) else _unmarked


class _DeferredPackage(ModuleType):
    """`torch._dynamo` until somebody needs it: marks mean nothing, any other name loads the package.

    Once `released`, every name loads it. So does the import of a submodule then: it asks for `__path__`.
    """

    def __getattr__(self, name: str) -> Any:
        opened = "__path__" in vars(self)
        if name in _MARKS and opened:
            return _unmarked
        if name.startswith("__") and (opened or name != "__path__"):
            raise AttributeError(name)
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on it is the package itself
        self.__path__ = spec.submodule_search_locations or []
        spec.loader.exec_module(self)
        return getattr(self, name)

    def released(self) -> None:
        """The marks end here."""
        del self.__path__


class _DeferredUtils(ModuleType):
    """`torch._dynamo.utils`, of which torchvision wants one function that it calls later, if ever."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _called_later(name) if name == "is_compile_supported" else getattr(_real_utils(), name)


def _real_utils() -> ModuleType:
    if isinstance(sys.modules.get(_UTILS), _DeferredUtils):
        del sys.modules[_UTILS]
    return import_module(_UTILS)


def _called_later(name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return getattr(_real_utils(), name)(*arguments)

    return call


def _defer_compiler() -> None:
    spec = find_spec(_PACKAGE)
    if spec is None or _PACKAGE in sys.modules:
        return
    package = _DeferredPackage(_PACKAGE)
    package.__spec__, package.__loader__, package.__file__ = spec, spec.loader, spec.origin
    package.__path__, package.__package__ = spec.submodule_search_locations or [], _PACKAGE
    sys.modules[_PACKAGE] = package
    sys.modules[_UTILS] = _DeferredUtils(_UTILS)


@contextmanager
def quick_imports() -> Iterator[None]:
    """While it is entered, what is imported does not load torch's compiler and is told that torch is not distributed.

    The compiler loads by itself when it is used later. Does nothing where it is loaded already.
    """
    collects, is_available = gc.isenabled(), distributed.is_available
    gc.disable()  # imports make many objects and no garbage
    try:
        _defer_compiler()
        distributed.is_available = lambda: False
        yield
    finally:
        distributed.is_available = is_available
        if isinstance(sys.modules.get(_UTILS), _DeferredUtils):
            del sys.modules[_UTILS]
        package = sys.modules.get(_PACKAGE)
        if isinstance(package, _DeferredPackage):
            package.released()
        if collects:
            gc.enable()
