"""The table of docs/results/metrics.md: every line of `benchmarks/metric_parity.py` agrees to 1e-6."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("metric_parity", ROOT / "benchmarks" / "metric_parity.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow  # the table itself is made with 1,000 cases
def test_every_measure_agrees_with_its_reference() -> None:
    rows = list(parity().rows(15, seed=17))
    assert len(rows) >= 25
    assert not [row for row in rows if not row.difference < 1e-6]


def test_the_document_holds_a_table_that_agrees() -> None:
    module = parity()
    text = (ROOT / "docs" / "results" / "metrics.md").read_text()
    table = text.split(module.MARKS[0])[1].split(module.MARKS[1])[0]
    lines = [line.strip("|").split("|") for line in table.strip().splitlines()[2:]]
    assert len(lines) >= 25
    assert all(float(line[3]) < 1e-6 for line in lines)
