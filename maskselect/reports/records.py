"""Scored samples on disk, one line each, so that an interrupted evaluation goes on and two can be compared."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from maskselect.ops.atomic import write_text
from maskselect.structures.scored import Scored


def records_path(report: Path) -> Path:
    """Where the samples of a report lie: `NAME.samples.jsonl` beside `NAME.json`."""
    return report.with_suffix(".samples.jsonl")


class RecordFile:
    """Lines of `Scored` under a key of model, data and settings; a file of another key is begun anew.

    A line that an interruption cut off is dropped, and its sample asked again.
    """

    def __init__(self, path: Path, key: dict[str, Any]) -> None:
        self.path, self.key = path, key
        found = list(_lines(path)) if path.is_file() else []
        self.rows: list[Scored] = []
        if found and found[0] == {"key": key}:
            self.rows = [Scored.from_json(line) for line in found[1:]]
        self._file: TextIO | None = None

    def __enter__(self) -> "RecordFile":
        """Opens it for writing, with what was there before."""
        lines = [{"key": self.key}, *(row.as_json() for row in self.rows)]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines), durable=True)
        self._file = self.path.open("a")
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, row: Scored) -> None:
        """One more sample, on disk at once."""
        if self._file is None:
            raise RuntimeError("the record file is not open")
        self.rows.append(row)
        self._file.write(json.dumps(row.as_json()) + "\n")
        self._file.flush()


def read_records(report: Path) -> list[Scored]:
    """The samples of a report. Raises FileNotFoundError or ValueError, naming the file, when they cannot be had."""
    path = records_path(report)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected it beside {report}, where evaluate writes it")
    lines = list(_lines(path))
    if not lines or "key" not in lines[0]:
        raise ValueError(f"{path} does not begin with a key; was it written by maskselect evaluate?")
    return [Scored.from_json(line) for line in lines[1:]]


def in_order(first: Sequence[Scored], second: Sequence[Scored]) -> tuple[list[Scored], list[Scored]]:
    """The samples that both have, in the order of the first. Raises ValueError when there is none."""
    other = {row.sample_id: row for row in second}
    shared = [row for row in first if row.sample_id in other]
    if not shared:
        raise ValueError("the two reports have no sample in common; expected the same data set and split")
    return shared, [other[row.sample_id] for row in shared]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                return  # cut off in the middle of a line
            if isinstance(record, dict):
                yield record
