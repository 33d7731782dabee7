"""Published weights that are pickles (`.pth`, `.pt`): read without running what is in them."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_pickled(path: Path, what: str, hint: str = "") -> Any:
    """What a file of plain weights holds, on the CPU; mapped and not copied where the format allows it.

    what: whose checkpoint it is, for the error.  hint: the command that gets the file, for the error too.
    Raises ValueError when the file is damaged, of another format, or holds more than tensors and plain containers.
    """
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged file breaks its reader in any way: KeyError, AssertionError, struct.error...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, pickle.UnpicklingError):  # torch would advise to run what is in the file
            reason = "it is of another format, or holds more than tensors"
        told = f"{what} checkpoint {path} is truncated or not a plain weights file ({reason})"
        raise ValueError(f"{told}; {hint}" if hint else told) from error


def _check_sums(path: Path) -> None:
    """Raises ValueError when a part of a zipped checkpoint is not what its checksum says, which torch does not ask."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"checksum of {damaged} is wrong")


def read_state_dict(path: Path, what: str, hint: str = "", wrapper: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a file by name, taken out of `wrapper` where the file has that. Raises as `read_pickled` does."""
    content = read_pickled(path, what, hint)
    tensors = content.get(wrapper, content) if wrapper and isinstance(content, dict) else content
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in tensors.items()
    ):
        within = f", or {wrapper!r}" if wrapper else ""
        raise ValueError(f"{what} checkpoint {path} holds no state dict; expected tensors by name{within}")
    return tensors
