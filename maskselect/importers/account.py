"""The account of an import: what became of every tensor, for the terminal and for a file beside the weights."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from maskselect.backends.name_map import ImportReport
from maskselect.ops.atomic import write_text

NONE = "-"
"""Stands for a missing source or target."""

REFUSED = "REFUSED"
"""First word of the reason for a tensor that prevents the import."""


@dataclass(frozen=True)
class Row:
    """One tensor.

    Attributes:
        source: name in the release, or `NONE`.
        shape: shape of the source tensor.
        dtype: dtype of the source tensor, or `NONE`.
        target: name in the new files, or `NONE`.
        why: the reason for this target.
    """

    source: str
    shape: tuple[int, ...]
    dtype: str
    target: str
    why: str

    @classmethod
    def of(cls, source: str, tensor: Tensor, target: str, why: str) -> "Row":
        """The row of a tensor."""
        return cls(source, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), target, why)

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """All fields as text."""
        shape = " x ".join(map(str, self.shape)) or ("1" if self.dtype != NONE else NONE)
        return self.source, shape, self.dtype, self.target, self.why


def report_rows(report: ImportReport, headers: Mapping[str, Tensor], prefix: str, why: str) -> list[Row]:
    """The rows of a report.

    Args:
        report: of an import by name.
        headers: the tensors of the release.
        prefix: goes before every target.
        why: the reason for matched tensors.
    """
    rows = [
        Row.of(source, headers[source], prefix + own, why) for source, names in report.matched.items() for own in names
    ]
    rows += [Row.of(name, headers[name], NONE, f"left behind: {reason}") for name, reason in report.dropped.items()]
    rows += [
        Row.of(line.partition(" ")[0], headers[line.partition(" ")[0]], NONE, f"{REFUSED}: {line}")
        for line in report.reshaped
    ]
    rows += [Row.of(name, headers[name], NONE, f"{REFUSED}: unknown") for name in report.unknown]
    return rows + [Row(name, (), NONE, NONE, f"{REFUSED}: missing") for name in report.missing]


def write_rows(path: Path, source: Path, rows: Iterable[Row], assumed: Sequence[str]) -> None:
    """Write JSON with `source`, `assumed`, and `tensors`, a list of rows by field name."""
    content = {"source": str(source), "assumed": list(assumed), "tensors": [vars(row) for row in rows]}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
