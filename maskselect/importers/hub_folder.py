"""The weights of a folder as the hub has them: one file, or shards with an index; safetensors, or pickled by torch.

Nothing but plain data is unpickled, and every shard is checked against the index before anything is made of it.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskselect.backends.pickled import read_state_dict

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of weights that are one file, the best first; of shards the index bears the name with `.index.json`."""

_SHOWN = 3


class HubWeights(Mapping[str, Tensor]):
    """Tensors by name, in the order of the files, on the CPU.

    They are mapped from disk where the file allows it, which safetensors and torch's zip format do; of older pickles
    one file at a time is in memory.

    Args:
        folder: where the files are.
        what: whose weights they should be, for errors.
        example: a hub id of that kind, for the command that gets it.

    `headers` has every tensor on the meta device: its shape and dtype, and no data.

    Raises FileNotFoundError when the folder, its weights or a shard are not there; ValueError when a file is damaged or
    holds more than tensors, or when the index tells something else than what the shards hold.
    """

    def __init__(self, folder: Path, what: str, example: str) -> None:
        self.folder, self.what = folder, what
        self.hint = f"get it with: hf download {example} --local-dir {folder}"
        self.headers: dict[str, Tensor] = {}
        self._places: dict[str, Path] = {}
        self._mapped: dict[Path, dict[str, Tensor]] = {}
        self._last: tuple[Path, dict[str, Tensor]] | None = None
        for path, named in self._files().items():
            held = self._opened(path)
            if named is not None:
                _check_index(path, set(held), named)
            for name, tensor in held.items():
                self._places[name] = path
                self.headers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    def __getitem__(self, name: str) -> Tensor:
        return self._opened(self._places[name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _files(self) -> dict[Path, set[str] | None]:
        """The files with weights, each with the names that the index gives it, or None where there is no index."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder {self.folder} does not exist; expected a {self.what} ({self.hint})")
        for single in FILES:
            index = self.folder / f"{single}.index.json"
            if index.is_file():
                return self._shards(index)
            if (self.folder / single).is_file():
                return {self.folder / single: None}
        expected = " or ".join(f"{single}, alone or in shards with {single}.index.json" for single in FILES)
        raise FileNotFoundError(f"{self.folder} holds no weights of a {self.what}; expected {expected} ({self.hint})")

    def _shards(self, index: Path) -> dict[Path, set[str] | None]:
        placed = read_json(index).get("weight_map")
        if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
            raise ValueError(f"{index} has no weight_map that gives every tensor its file")
        found: dict[Path, set[str] | None] = {}
        for file in sorted(set(placed.values())):
            if Path(file).name != file:
                raise ValueError(f"{index} names {file!r}, which is no file beside it")
            found[index.with_name(file)] = {name for name, other in placed.items() if other == file}
        absent = [path.name for path in found if not path.is_file()]
        if absent:
            raise FileNotFoundError(f"{index} names {', '.join(absent)}, which is not there ({self.hint})")
        return found

    def _opened(self, path: Path) -> dict[str, Tensor]:
        if path in self._mapped:
            return self._mapped[path]
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        self._last = None  # two of them at once may be more than there is memory for
        if path.suffix == ".safetensors":
            self._mapped[path] = tensors = _read_safetensors(path)
        else:
            tensors = read_state_dict(path, self.what)
            if zipfile.is_zipfile(path):
                self._mapped[path] = tensors
            else:
                self._last = (path, tensors)
        return tensors


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file has by name. Raises FileNotFoundError without it, ValueError when it is anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings by name")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {path} is truncated or not a safetensors file: {error}") from error


def _check_index(path: Path, held: set[str], named: set[str]) -> None:
    absent, extra = sorted(named - held), sorted(held - named)
    if absent or extra:
        raise ValueError(
            f"the index in {path.parent} does not tell what {path.name} holds: {len(absent)} tensors are not in it"
            f"{_some(absent)}, {len(extra)} are in it but not in the index{_some(extra)}"
        )


def _some(names: list[str]) -> str:
    return f" ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})" if names else ""
