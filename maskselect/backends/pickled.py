"""Reads published weights in pickle files (`.pth`, `.pt`) without running code from them."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_pickled(path: Path, what: str, hint: str = "") -> Any:
    """Load a file of plain weights on the CPU, memory-mapped if the format allows it.

    Args:
        path: the file.
        what: name of the model, for errors.
        hint: command that gets the file, for errors.

    Raises:
        ValueError: the file is damaged, has another format, or holds more than tensors and plain containers.
    """
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # for a damaged file any error is possible: KeyError, AssertionError, struct.error...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's message recommends to run the code in the file
            reason = "it has another format, or holds more than tensors"
        message = f"{what} checkpoint {path} is truncated or not a plain weights file ({reason})"
        raise ValueError(f"{message}; {hint}" if hint else message) from error


def _check_sums(path: Path) -> None:
    """Raise ValueError for a wrong checksum in a zipped checkpoint, because torch does not check them."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"checksum of {damaged} is wrong")


def read_state_dict(path: Path, what: str, hint: str = "", wrapper: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a file by name, from the entry `wrapper` if the file has it. Raises as `read_pickled`."""
    content = read_pickled(path, what, hint)
    tensors = content.get(wrapper, content) if wrapper and isinstance(content, dict) else content
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in tensors.items()
    ):
        within = f", or {wrapper!r}" if wrapper else ""
        raise ValueError(f"{what} checkpoint {path} holds no state dict; expected tensors by name{within}")
    return tensors
