"""`RecordFiles`: what frozen networks make of pictures, computed once for each and kept on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskselect.ops.atomic import atomic_file
from maskselect.structures.groups import GroupSource, using

R = TypeVar("R")


class RecordFiles(Generic[R]):
    """A folder of records, which are dataclasses of tensors and None, and of a dict of tensors named `extra`.

    Several processes may write the same file.

    Args:
        kind: the class of the records.
        folder: gets the files; None keeps nothing.
    """

    def __init__(self, kind: Callable[..., R], folder: Path | None) -> None:
        self.kind, self.folder = kind, folder

    def get(self, name: str, compute: Callable[[], R]) -> R:
        """The record of a name from disk, or newly computed."""
        return self._read(name) or self._write(name, compute())

    def keep(self, name: str, compute: Callable[[], R]) -> bool:
        """Compute and write the record of a name, unless it is on disk.

        Returns:
            Whether it was computed.

        Raises:
            ValueError: without a folder.
        """
        if self.folder is None:
            raise ValueError("frozen features are kept in no folder")
        if self._read(name) is not None:
            return False
        self._write(name, compute())
        return True

    def _path(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:18]}.safetensors"

    def _write(self, name: str, record: R) -> R:
        path = self._path(name)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as part:
                save_file({k: v.contiguous() for k, v in tensors_of(record).items()}, part)
        return record

    def _read(self, name: str) -> R | None:
        """A record from disk; None if there is none, or its file is truncated or has other tensors."""
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        try:
            tensors: dict[str, Any] = load_file(path)
            extra = {k.removeprefix("extra."): tensors.pop(k) for k in list(tensors) if k.startswith("extra.")}
            return self.kind(**tensors, extra=extra)
        except (SafetensorError, TypeError):
            return None


def tensors_of(record: Any) -> dict[str, Tensor]:
    """The tensors of a record, as its file names them."""
    tensors = {k: v for k, v in vars(record).items() if k != "extra" and v is not None}
    return tensors | {f"extra.{k}": v for k, v in record.extra.items()}


def record_name(source: GroupSource, item: int) -> str:
    """A name that changes with the picture and its annotation.

    Raises:
        UnusableImageError: when the picture cannot be read.
    """
    with using(source, item):
        return f"{source.image_id(item)}#{source.version(item)}"


def rng_of(name: str) -> np.random.Generator:
    """The random numbers of a name, the same in each run."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
