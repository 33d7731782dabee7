"""What makes a part of a system the part it is: its weights and its settings, as a digest."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import PurePath
from types import FunctionType, MethodType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (bool, int, float, complex, str, bytes, PurePath, torch.dtype, type(None))


class _Digest(Protocol):
    """A hash that bytes go into."""

    def update(self, data: bytes, /) -> None: ...


def identity(parts: Iterable[object], beginning: bytes = b"") -> str:
    """Twelve hex digits over weights and settings of parts, at any depth. beginning: bytes that go in first.

    What is not of this project counts by its weights alone: what a library keeps beside them may change as it runs.
    Where something is computed (a device) does not count.
    """
    digest = hashlib.sha256(beginning)
    seen: set[int] = set()
    for part in parts:
        _add(part, digest, seen)
    return digest.hexdigest()[:12]


def _add(value: object, digest: _Digest, seen: set[int]) -> None:
    """Each kind of value begins with its type's name, so that no two kinds can be taken for one another."""
    if isinstance(value, FunctionType):
        digest.update(f"function {value.__module__}.{value.__qualname__};".encode())
        return
    digest.update(f"{type(value).__name__};".encode())
    if isinstance(value, _PLAIN):
        digest.update(f"{value!r};".encode())
    elif isinstance(value, Tensor):
        _add_tensor(value, digest)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.shape};{value.dtype};".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            _add(key, digest, seen)
            _add(value[key], digest, seen)
    elif isinstance(value, list | tuple):
        for held in value:
            _add(held, digest, seen)
    elif isinstance(value, MethodType):
        digest.update(f"{value.__func__.__qualname__};".encode())
        _add(value.__self__, digest, seen)
    elif id(value) not in seen:  # parts may hold one another
        seen.add(id(value))
        if isinstance(value, nn.Module):
            _add_module(value, digest, seen)
        elif is_dataclass(value) or _is_ours(value):
            _add_settings(value, digest, seen)


def _add_module(module: nn.Module, digest: _Digest, seen: set[int]) -> None:
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())  # a state dict leaves some buffers out
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name};".encode())
        _add_tensor(tensor, digest)
    for name, part in module.named_modules():
        if _is_ours(part):
            seen.add(id(part))
            digest.update(f"{name};{type(part).__name__};".encode())
            _add_settings(part, digest, seen)


def _add_settings(owner: object, digest: _Digest, seen: set[int]) -> None:
    skipped = _OF_EVERY_MODULE if isinstance(owner, nn.Module) else ()
    for name, value in sorted(vars(owner).items()):
        if name not in skipped:
            digest.update(f"{name};".encode())
            _add(value, digest, seen)


def _add_tensor(values: Tensor, digest: _Digest) -> None:
    digest.update(f"{tuple(values.shape)};{values.dtype};".encode())
    if values.is_meta:
        return
    digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _is_ours(value: object) -> bool:
    return type(value).__module__.startswith("maskselect.")
