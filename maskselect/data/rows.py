"""Rows of a table in parquet or JSON files, read on demand."""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maskselect.backends.arrow import pa, pq
from maskselect.data.files import refuse_pointer
from maskselect.data.index import Record, Section, open_index

_KEPT_GROUPS = 4  # decoded row groups in memory


class ParquetRows:
    """Rows of several parquet files with the same columns. The last row groups stay decoded in memory.

    Raises:
        ValueError: a file is damaged, or lacks columns of the first.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.columns: set[str] = set()
        starts, self._groups, before = [], [], 0
        for number, file in enumerate(files):
            opened = _opened(file)
            columns = set(opened.schema_arrow.names)
            self.columns = self.columns or columns
            if missing := sorted(self.columns - columns):
                raise ValueError(f"{file} has no column(s) {', '.join(missing)}, which {files[0].name} has")
            for group in range(opened.num_row_groups):
                starts.append(before)
                self._groups.append((number, group))
                before += opened.metadata.row_group(group).num_rows
        self._starts, self._count = np.array(starts), before
        self._cached: OrderedDict[tuple[int, frozenset[str]], pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cached": OrderedDict()}

    def __len__(self) -> int:
        return self._count

    def row(self, number: int, columns: frozenset[str] | None = None) -> Record:
        """One row with all columns, or with some."""
        place = int(np.searchsorted(self._starts, number, side="right")) - 1
        table = self._group(place, frozenset(self.columns) if columns is None else columns)
        row: Record = table.slice(number - int(self._starts[place]), 1).to_pylist()[0]
        return row

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return [
            value for file in self.files for value in _reading(file, lambda f: f.read([name])).column(0).to_pylist()
        ]

    def _group(self, place: int, columns: frozenset[str]) -> "pa.Table":
        key = (place, columns)
        if key not in self._cached:
            file, group = self._groups[place]
            self._cached[key] = _reading(self.files[file], lambda f: f.read_row_group(group, sorted(columns)))
            if len(self._cached) > _KEPT_GROUPS:
                self._cached.popitem(last=False)
        self._cached.move_to_end(key)
        return self._cached[key]


class JsonRows:
    """Rows of a JSON list or of JSON lines, through an index beside the file.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, file: Path) -> None:
        lines = file.suffix == ".jsonl"
        sections = {"row": Section("", key=None)}
        self._index = open_index(file, sections, (lambda path: {"row": _lines(path)}) if lines else None)
        self.columns = {name for record in self._index.all("row") for name in record}

    def __len__(self) -> int:
        return self._index.count("row")

    def row(self, number: int, columns: frozenset[str] | None = None) -> Record:
        """One row with all columns, or with some."""
        record = self._index.get("row", number)
        return record if columns is None else {name: record[name] for name in columns if name in record}

    def column(self, name: str) -> list[Any]:
        """All values of a column; None for a row without it."""
        return [record.get(name) for record in self._index.all("row")]


def _lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number}, is not valid JSON: {error}") from error


def _opened(file: Path) -> "pq.ParquetFile":
    refuse_pointer(file, f"file {file}")
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is truncated or not parquet: {_one_line(error)}") from error


def _reading(file: Path, read: Callable[["pq.ParquetFile"], "pa.Table"]) -> "pa.Table":
    try:
        return read(_opened(file))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
