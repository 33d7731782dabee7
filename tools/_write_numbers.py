#!/usr/bin/env python3
"""Rewrites figures in README.md and docs/results from the stored reports; tests/test_numbers.py fails if one differs.

`docs/results/numbers.yaml` lists the passages of each page that hold figures, with a place instead of each figure:

    {REPORT:KEY:KEY}     an entry of docs/reports/REPORT.json; a single KEY is one of metrics.overall

The tables between the marks of `benchmarks/llmseg_tables.py` are made anew from their reports, too.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import _environment  # noqa: F401  finds the repository's own environment
import yaml

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "docs" / "results" / "numbers.yaml"
REPORTS = ROOT / "docs" / "reports"
_PLACE = re.compile(r"\{([^{}]+)\}")
_NUMBER = r"(\d[\d,]*(?:\.\d+)?)"
_FIGURE = re.compile(r"(?<![\w.@-])\d{1,3}\.\d(?![\d.])")


def spec() -> dict[str, dict[str, Any]]:
    """For each page its `passages`, the `sections` in which every figure is in a passage, and `other` figures there."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(SPEC.read_text())
    return content


def figure(place: str) -> str:
    """The text of a figure: with one decimal, or a whole number with commas.

    Raises:
        ValueError: there is no such report or entry.
    """
    name, *keys = place.split(":")
    found: Any = _report(name)
    path = keys if len(keys) != 1 or keys[0] in found else ["metrics", "overall", *keys]
    for key in path:
        try:
            found = found[int(key) if isinstance(found, list) else key]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{REPORTS / name}.json has no {':'.join(path)}") from error
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"{REPORTS / name}.json has {found!r} for {':'.join(path)}; expected a number")
    return f"{found:,}" if isinstance(found, int) else str(Decimal(str(found)).quantize(Decimal("0.1"), ROUND_HALF_UP))


@cache
def _report(name: str) -> Any:
    file = REPORTS / f"{name}.json"
    if not file.is_file():
        raise ValueError(f"there is no report {file}")
    return json.loads(file.read_text())


def found(text: str, passage: str) -> re.Match[str]:
    """The passage in a page, with a group for each figure.

    Raises:
        ValueError: the page does not have it once.
    """
    parts = _PLACE.split(passage.strip())[::2]
    pattern = _NUMBER.join(re.sub(r"(?:\\\s|\s)+", r"\\s+", re.escape(part)) for part in parts)
    matches = list(re.finditer(pattern, text))
    if len(matches) != 1:
        raise ValueError(f"passage {passage.strip()[:60]!r} is in its page {len(matches)} times; expected once")
    return matches[0]


def rewritten(text: str, passages: list[str]) -> str:
    """A page with the figures of the reports."""
    for passage in passages:
        match = found(text, passage)
        for number, place in reversed(list(enumerate(_PLACE.findall(passage.strip()), 1))):
            start, end = match.span(number)
            text = text[:start] + figure(place) + text[end:]
    return text


def uncovered(text: str, page: Mapping[str, Any]) -> list[str]:
    """The figures in the sections of a page that are neither in a passage nor among its `other` ones."""
    spans = [found(text, passage).span() for passage in page["passages"]]
    other = {str(one) for one in page.get("other", ())}
    return [
        match[0]
        for section in page.get("sections", ())
        for match in _FIGURE.finditer(text, *_section(text, section))
        if match[0] not in other and not any(start <= match.start() < end for start, end in spans)
    ]


def _section(text: str, heading: str) -> tuple[int, int]:
    start = text.index(f"\n## {heading}\n")
    end = text.find("\n## ", start + 4)
    return start, len(text) if end < 0 else end


def pages() -> Iterator[tuple[Path, str]]:
    """Each page and its text with the figures of the reports."""
    sys.path.append(str(ROOT))
    from benchmarks import llmseg_tables  # noqa: PLC0415  found by the line above

    for name, page in spec().items():
        text = rewritten((ROOT / name).read_text(), page["passages"])
        if ROOT / name == llmseg_tables.DOCUMENT:
            text = llmseg_tables.with_tables(text, llmseg_tables.tables())
        yield ROOT / name, text


def main() -> None:
    """Rewrite the pages that differ."""
    for path, text in pages():
        if text != path.read_text():
            path.write_text(text)
            print(f"rewritten: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
