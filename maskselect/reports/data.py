"""Data sets as tables for the terminal: what there is, and what a check found."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from maskselect.data.catalog import CatalogEntry
from maskselect.data.check import CheckReport


def print_catalog(catalog: Mapping[str, CatalogEntry]) -> None:
    """One row a data set: name, title, splits, page, licence."""
    table = Table("name", "data set", "splits", "where to get it", "licence")
    for name, entry in catalog.items():
        table.add_row(name, entry.title, " ".join(entry.splits), entry.page, entry.licence)
    _console().print(table)


def print_check(name: str, entry: CatalogEntry, reports: Mapping[str, CheckReport], whole: bool) -> None:
    """One row a split, then the problems with their first examples. whole: no limit was set, so counts compare."""
    table = Table(title=f"{name}: {entry.title}", title_justify="left")
    for column in ("split", "images", "samples", "published", "no target", "with references", "targets", "problems"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, report in reports.items():
        counts = (report.no_target, report.with_references, report.targets, report.problems.total())
        row = (report.images, report.samples, _published(entry, split), *counts)
        table.add_row(split, *(str(cell) for cell in row))
    console = _console()
    console.print(table)
    for split, report in reports.items():
        published = entry.samples.get(split)
        if whole and published is not None and published != report.samples:
            console.print(f"{split}: {report.samples} samples, {published} were published: a part is missing, or more")
        for kind, count in report.problems.items():
            console.print(f"{split}: {kind}: {count}", highlight=False)
            for sentence in report.examples[kind]:
                console.print(f"    {sentence}", highlight=False, markup=False)


def print_composition(rows: Sequence[tuple[str, str, bool, int, int]], counts: Mapping[str, int]) -> None:
    """Prompts of MaskGroups-2M by source and kind beside the paper's Table 2, then what else was counted."""
    table = Table(title="prompts", title_justify="left")
    for column in ("source", "kind", "reference", "built", "paper (thousands)"):
        table.add_column(column, justify="right" if column in ("built", "paper (thousands)") else "left")
    for source, kind, with_reference, built, paper in rows:
        table.add_row(source, kind, "with" if with_reference else "without", str(built), str(paper))
    table.add_row("all", "", "", str(sum(row[3] for row in rows)), str(sum(row[4] for row in rows)), style="bold")
    console = _console()
    console.print(table)
    for name, count in sorted(counts.items()):
        if not name.startswith("prompts "):
            console.print(f"{name}: {count}", highlight=False)


def print_questions(report: Mapping[str, Any]) -> None:
    """A build of LLM-Seg40K: images by sort, questions by split, what was refused and why, images left out."""
    console = _console()
    sampled = Table("images", *("wanted", "found", "taken", "published"), title_justify="left")
    for name, tally in report["sampled"].items():
        sampled.add_row(
            name, *(str(tally[key]) for key in ("wanted", "found", "taken")), str(report["published"]["images"][name])
        )
    console.print(sampled)
    splits = Table("split", "images", "questions", "an image", "words", "categories")
    for name, found in report["splits"].items():
        splits.add_row(name, *(str(value) for value in found.values()))
    console.print(splits)
    questions = report["questions"]
    console.print(f"{questions['replies']} replies, {questions['offered']} questions offered, {questions['kept']} kept")
    for reason, count in questions["rejected"].items():
        if count:
            console.print(f"    refused, {reason}: {count}", highlight=False)
    for sentence in report["images"]["skipped"]:
        console.print(f"left out: {sentence}", highlight=False, markup=False)


def _published(entry: CatalogEntry, split: str) -> str:
    if split in entry.samples:
        return str(entry.samples[split])
    return f"about {entry.about[split]}" if split in entry.about else "–"


def _console() -> Console:
    # Piped into a file there is no width to fit into, and a squeezed table would lose its words.
    return Console(width=None if sys.stdout.isatty() else 200)
