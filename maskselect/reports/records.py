"""Scored samples on disk, one per line, so that an interrupted evaluation can resume and two can be compared."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from maskselect.ops.atomic import write_text
from maskselect.structures.scored import Scored


def records_path(report: Path) -> Path:
    """The file of a report's samples: `NAME.samples.jsonl` beside `NAME.json`."""
    return report.with_suffix(".samples.jsonl")


class RecordFile:
    """A file of `Scored` under a key of model, data and settings. A file with another key is replaced.

    A line that an interruption cut off is dropped, and its sample is scored again.
    """

    def __init__(self, path: Path, key: dict[str, Any]) -> None:
        self.path, self.key = path, key
        lines = list(_lines(path)) if path.is_file() else []
        same = lines and lines[0] == {"key": key}
        self.rows: list[Scored] = [Scored.from_json(line) for line in lines[1:]] if same else []
        self._file: TextIO | None = None

    def __enter__(self) -> "RecordFile":
        """Open the file for writing, with its present rows."""
        lines = [{"key": self.key}, *(row.as_json() for row in self.rows)]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines), durable=True)
        self._file = self.path.open("a")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        assert self._file is not None
        self._file.close()

    def add(self, row: Scored) -> None:
        """Add a sample and write it at once."""
        assert self._file is not None
        self.rows.append(row)
        self._file.write(json.dumps(row.as_json()) + "\n")
        self._file.flush()


def read_records(report: Path) -> list[Scored]:
    """The samples of a report.

    Raises:
        FileNotFoundError: there is no file of samples beside the report.
        ValueError: the file does not begin with a key.
    """
    path = records_path(report)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected it beside {report}, where evaluate writes it")
    lines = list(_lines(path))
    if not lines or "key" not in lines[0]:
        raise ValueError(f"{path} does not begin with a key; was it written by maskselect evaluate?")
    return [Scored.from_json(line) for line in lines[1:]]


def in_order(first: Sequence[Scored], second: Sequence[Scored]) -> tuple[list[Scored], list[Scored]]:
    """The samples that both have, in the order of the first. Raises ValueError if there is none."""
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
