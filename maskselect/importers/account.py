"""What became of every tensor of an import, line by line: for the terminal, and for a file beside the weights."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from maskselect.backends.name_map import ImportReport
from maskselect.ops.atomic import write_text

NONE = "-"
"""Stands for a source or target that there is not."""

REFUSED = "REFUSED"
"""What the reason begins with where a tensor keeps the import from being done."""

COLUMNS = ("source", "shape", "dtype", "target", "why")


@dataclass(frozen=True)
class Row:
    """source, target: names there and here, or `NONE`.  shape, dtype: of the source's tensor.  why: it goes there."""

    source: str
    shape: tuple[int, ...]
    dtype: str
    target: str
    why: str

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """As text, in the order of `COLUMNS`."""
        shape = " x ".join(map(str, self.shape)) or ("1" if self.dtype != NONE else NONE)
        return self.source, shape, self.dtype, self.target, self.why


def row(source: str, tensor: Tensor, target: str, why: str) -> Row:
    """A row for a tensor that is there, or that was made. tensor: its shape and dtype are looked at."""
    return Row(source, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), target, why)


def report_rows(report: ImportReport, headers: Mapping[str, Tensor], prefix: str, why: str) -> list[Row]:
    """A row for each tensor of a report. prefix: of the targets.  why: names are matched."""
    reshaped = {line.partition(" ")[0]: line for line in report.reshaped}
    rows = [
        row(foreign, headers[foreign], prefix + own, why) for foreign, owns in report.matched.items() for own in owns
    ]
    rows += [row(foreign, headers[foreign], NONE, f"left behind: {told}") for foreign, told in report.dropped.items()]
    rows += [row(foreign, headers[foreign], NONE, f"{REFUSED}: {line}") for foreign, line in reshaped.items()]
    rows += [row(foreign, headers[foreign], NONE, f"{REFUSED}: unknown") for foreign in report.unknown]
    return rows + [Row(foreign, (), NONE, NONE, f"{REFUSED}: missing") for foreign in report.missing]


def write_rows(path: Path, source: Path, rows: Iterable[Row], assumed: Sequence[str]) -> None:
    """JSON: `source`, `assumed`, and `tensors`, a list of `COLUMNS` by name."""
    tensors = [dict(zip(COLUMNS, (r.source, list(r.shape), r.dtype, r.target, r.why), strict=True)) for r in rows]
    told = {"source": str(source), "assumed": list(assumed), "tensors": tensors}
    write_text(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
