"""The weights of a folder from the hub: one file, or shards with an index; safetensors, or pickled by torch.

Only plain data is unpickled. The importers check names and shapes of all tensors before they write anything.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskselect.backends.pickled import read_state_dict

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of weights of a whole model in one file; the index of shards has the name with `.index.json`."""


class HubWeights(Mapping[str, Tensor]):
    """Tensors by name on the CPU, in the order of the files, of which one is open at a time.

    safetensors and torch's zip format are mapped from disk; older pickles are read into memory.

    Args:
        folder: the folder of the files.
        what: kind of the model, for errors.
        example: a hub id of that kind, for the command that downloads it.
        files: names of weights in one file, by preference.

    Attributes:
        headers: every tensor on the meta device, with its shape and dtype.

    Raises:
        FileNotFoundError: if the folder, its weights or a shard is missing.
        ValueError: if a file or the index is damaged, or a file holds more than tensors.
    """

    def __init__(self, folder: Path, what: str, example: str, files: Sequence[str] = FILES) -> None:
        self.folder, self.what, self.files = folder, what, files
        self.hint = f"get it with: hf download {example} --local-dir {folder}"
        self.headers: dict[str, Tensor] = {}
        self._files: dict[str, Path] = {}
        self._open: tuple[Path | None, dict[str, Tensor]] = (None, {})
        for path in self._paths():
            tensors = self._tensors(path)
            self._files.update(dict.fromkeys(tensors, path))
            for name, tensor in tensors.items():
                self.headers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors(self._files[name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _paths(self) -> list[Path]:
        """The files of weights."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder {self.folder} does not exist; expected a {self.what} ({self.hint})")
        for single in self.files:
            index = self.folder / f"{single}.index.json"
            if index.is_file():
                return self._shards(index)
            if (self.folder / single).is_file():
                return [self.folder / single]
        expected = " or ".join(f"{single}, alone or in shards with {single}.index.json" for single in self.files)
        raise FileNotFoundError(f"{self.folder} holds no weights of a {self.what}; expected {expected} ({self.hint})")

    def _shards(self, index: Path) -> list[Path]:
        files = read_json(index).get("weight_map")
        if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
            raise ValueError(f"{index} has no weight_map that gives every tensor its file")
        elsewhere = [file for file in files.values() if Path(file).name != file]
        if elsewhere:
            raise ValueError(f"{index} names {elsewhere[0]!r}, which is no file beside it")
        shards = [index.with_name(file) for file in sorted(set(files.values()))]
        absent = [path.name for path in shards if not path.is_file()]
        if absent:
            raise FileNotFoundError(f"{index} names {', '.join(absent)}, which is not there ({self.hint})")
        return shards

    def _tensors(self, path: Path) -> dict[str, Tensor]:
        if self._open[0] != path:
            self._open = (None, {})  # two unmapped files may not fit into memory
            read = _read_safetensors(path) if path.suffix == ".safetensors" else read_state_dict(path, self.what)
            self._open = (path, read)
        return self._open[1]


class Renamed(Mapping[str, Tensor]):
    """Tensors of a release by our names; each is read at every access and not kept.

    Args:
        weights: by foreign name.
        names: the foreign name for each of our names.
        prefix: only names that begin with it, without it.
    """

    def __init__(self, weights: Mapping[str, Tensor], names: Mapping[str, str], prefix: str = "") -> None:
        self._weights = weights
        self._names = {own.removeprefix(prefix): name for own, name in names.items() if own.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it holds anything else.
    """
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
