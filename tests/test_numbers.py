"""The figures in README and docs/results are those of the stored reports. `make numbers` rewrites them."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("_write_numbers")


def test_the_figures_are_those_of_the_reports(numbers: Any) -> None:
    pages = dict(numbers.pages())
    assert len(pages) >= 4
    for path, text in pages.items():
        assert path.read_text() == text, f"{path.name} has other figures than docs/reports; see make numbers"


def test_every_figure_of_the_listed_sections_is_in_a_report(numbers: Any) -> None:
    listed = 0
    for name, page in numbers.spec().items():
        assert numbers.uncovered((ROOT / name).read_text(), page) == [], name
        listed += len(page.get("sections", ()))
    assert listed >= 4


PAGE = "# P\n\n## One\n\n| test | 12.3 | 1,000 |\n\nand so 4.5 more.\n\n## Two\n\nnobody says where 6.7 is from\n"


@pytest.fixture
def small(numbers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(numbers, "REPORTS", tmp_path)
    report = {"metrics": {"overall": {"gIoU": 45.25, "cIoU": None}}, "samples": 3000, "edges": [1.04]}
    (tmp_path / "a.json").write_text(json.dumps(report))
    return numbers


def test_a_wrong_figure_is_rewritten(small: Any) -> None:
    text = small.rewritten(PAGE, ["| test | {a:gIoU} | {a:samples} |", "and so\n{a:edges:0} more"])
    assert text == PAGE.replace("12.3", "45.3").replace("1,000", "3,000").replace("4.5", "1.0")


def test_a_figure_without_a_report_is_found(small: Any) -> None:
    page = {"passages": ["| test | {a:gIoU} | {a:samples} |"], "sections": ["One"]}
    assert small.uncovered(PAGE, page) == ["4.5"]
    assert small.uncovered(PAGE, page | {"other": ["4.5"]}) == []
    assert small.uncovered(PAGE, page | {"sections": ["One", "Two"]}) == ["4.5", "6.7"]


@pytest.mark.parametrize(
    ("passage", "message"),
    [
        ("| test | {b:gIoU} |", r"there is no report .*b\.json"),
        ("| test | {a:cIoU} |", "has None for metrics:overall:cIoU; expected a number"),
        ("| test | {a:edges:7} |", r"a\.json has no edges:7"),
        ("| exam | {a:gIoU} |", "in its page 0 times; expected once"),
    ],
)
def test_what_cannot_be_written(small: Any, passage: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small.rewritten(PAGE, [passage])
