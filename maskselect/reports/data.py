"""Data sets as tables for the terminal: what there is, and what a check found."""

import sys
from collections.abc import Mapping

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


def _published(entry: CatalogEntry, split: str) -> str:
    if split in entry.samples:
        return str(entry.samples[split])
    return f"about {entry.about[split]}" if split in entry.about else "–"


def _console() -> Console:
    # Piped into a file there is no width to fit into, and a squeezed table would lose its words.
    return Console(width=None if sys.stdout.isatty() else 200)
