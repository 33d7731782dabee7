"""`ByValue`: comparison and printing for dataclasses that hold arrays."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

_SHOWN = 6
"""Number of members of a list or mapping in a `repr`."""


class ByValue:
    """Equality by value, a matching hash, and a short `repr` without pixels.

    Derive with `@dataclass(eq=False, repr=False)`. Objects are equal if they have the same class and all compared
    fields are equal; arrays are equal if shape, dtype and all values are.
    """

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = [field.name for field in fields(self) if field.compare]  # type: ignore[arg-type]
        return all(same_values(getattr(self, name), getattr(other, name)) for name in names)

    def __hash__(self) -> int:
        values = [getattr(self, field.name) for field in fields(self) if field.compare]  # type: ignore[arg-type]
        return hash((type(self), *(value for value in values if isinstance(value, str | int | float | Path))))

    def __repr__(self) -> str:
        shown = [field.name for field in fields(self) if field.repr]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={short(getattr(self, name))}' for name in shown)})"


def same_values(a: Any, b: Any) -> bool:
    """Whether two values are equal; arrays and containers of arrays are supported."""
    if isinstance(a, Tensor | np.ndarray) or isinstance(b, Tensor | np.ndarray):
        if type(a) is not type(b) or a.shape != b.shape or a.dtype != b.dtype:
            return False
        return bool((a.cpu() == b.cpu()).all()) if isinstance(a, Tensor) else bool((a == b).all())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_values(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same_values, a, b))
    return bool(a == b)


def short(value: Any) -> str:
    """A short text for a value: dtype and shape of an array, the first members of a container."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, dict):
        parts = [f"{key!r}: {short(item)}" for key, item in list(value.items())[:_SHOWN]]
        return "{" + ", ".join(parts + ["…"] * (len(value) > _SHOWN)) + "}"
    if isinstance(value, list | tuple):
        parts = [short(item) for item in value[:_SHOWN]] + ["…"] * (len(value) > _SHOWN)
        return f"[{', '.join(parts)}]" if isinstance(value, list) else f"({', '.join(parts)})"
    return repr(value)
