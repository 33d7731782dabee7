"""`ByValue`: comparison and printing for dataclasses that hold arrays."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

_SHOWN = 6
"""Members of a list or mapping that `repr` shows."""


class ByValue:
    """Equality by value, a hash that fits it, and a short `repr` without pixels.

    Derive with `@dataclass(eq=False, repr=False)`. Two objects are equal when they are of one class and all fields that
    take part in comparison are equal; arrays are, when shape, dtype and every value are.
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
    """Whether two values are equal, arrays and containers of arrays among them."""
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
    """A value in a few words: of an array dtype and shape, of containers the first members."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, dict):
        parts = [f"{key!r}: {short(one)}" for key, one in list(value.items())[:_SHOWN]]
        return "{" + ", ".join(parts + ["…"] * (len(value) > _SHOWN)) + "}"
    if isinstance(value, list | tuple):
        parts = [short(one) for one in value[:_SHOWN]] + ["…"] * (len(value) > _SHOWN)
        return f"[{', '.join(parts)}]" if isinstance(value, list) else f"({', '.join(parts)})"
    return repr(value)
