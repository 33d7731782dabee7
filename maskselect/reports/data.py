"""Data sets as tables for the terminal: the catalog, checks and builds."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.padding import Padding

from maskselect.backends.terminal import console, narrow_table, print_table
from maskselect.data.catalog import CatalogEntry
from maskselect.data.check import CheckReport


def print_catalog(catalog: Mapping[str, CatalogEntry]) -> None:
    """Print name, title, splits, page and licence of each data set."""
    screen = console()
    for name, entry in catalog.items():
        screen.print(f"[bold]{name}[/]: {escape(entry.title)}")
        for line in (f"splits: {' '.join(entry.splits)}", entry.page, f"licence: {entry.licence}"):
            screen.print(Padding(escape(line), (0, 0, 0, 4)))


def print_check(name: str, entry: CatalogEntry, reports: Mapping[str, CheckReport], whole: bool) -> None:
    """Print one row per split, then the problems with examples. whole: no limit was set, so counts are comparable."""
    columns = ("split", "images", "samples", "published", "no target", "with references", "targets", "problems")
    table = narrow_table(*columns)
    for split, report in reports.items():
        counts = (report.no_target, report.with_references, report.targets, report.problems.total())
        row = (report.images, report.samples, _published(entry, split), *counts)
        table.add_row(split, *(str(cell) for cell in row))
    print_table(table, f"{name}: {entry.title}")
    screen = console()
    for split, report in reports.items():
        published = entry.samples.get(split)
        if whole and published is not None and published != report.samples:
            screen.print(f"{split}: {report.samples} samples, {published} were published: samples are missing or added")
        for kind, count in report.problems.items():
            screen.print(f"{split}: {kind}: {count}", markup=False)
            for sentence in report.examples[kind]:
                screen.print(f"    {sentence}", markup=False, soft_wrap=True)


def print_composition(rows: Sequence[tuple[str, str, bool, int, int]], counts: Mapping[str, int]) -> None:
    """Print the prompts of MaskGroups-2M by source and kind beside the paper's Table 2, then all other counts."""
    table = narrow_table("source", "kind", "reference", "built", "paper (thousands)", words=3)
    for source, kind, with_reference, built, paper in rows:
        table.add_row(source, kind, "with" if with_reference else "without", str(built), str(paper))
    table.add_row("all", "", "", str(sum(row[3] for row in rows)), str(sum(row[4] for row in rows)), style="bold")
    print_table(table, "prompts")
    screen = console()
    for name, count in sorted(counts.items()):
        if not name.startswith("prompts "):
            screen.print(f"{name}: {count}", markup=False)


def print_recipe(
    name: str,
    rows: Sequence[tuple[str, int, int, int, int | None, int | None]],
    counts: Mapping[str, int] | None = None,
) -> None:
    """Print images and samples of the parts of a recipe beside the paper's, then all other counts."""
    table = narrow_table("part", "passes", "images", "samples", "paper: images", "paper: samples")
    for part, passes, *numbers in rows:
        cells = ("–" if number is None else f"{number:,}" for number in numbers)
        table.add_row(part, str(passes), *cells)
    print_table(table, name)
    for key, count in sorted((counts or {}).items()):
        console().print(f"{key}: {count}", markup=False)


def print_questions(report: Mapping[str, Any]) -> None:
    """Print a build of LLM-Seg40K: images by kind, questions by split, rejected questions, images left out."""
    screen = console()
    sampled = narrow_table("images", "wanted", "found", "taken", "published")
    for name, tally in report["sampled"].items():
        sampled.add_row(
            name, *(str(tally[key]) for key in ("wanted", "found", "taken")), str(report["published"]["images"][name])
        )
    screen.print(sampled)
    splits = narrow_table("split", "images", "questions", "an image", "words", "categories")
    for name, counts in report["splits"].items():
        splits.add_row(name, *(str(value) for value in counts.values()))
    screen.print(splits)
    questions = report["questions"]
    screen.print(f"{questions['replies']} replies, {questions['offered']} questions offered, {questions['kept']} kept")
    for reason, count in questions["rejected"].items():
        if count:
            screen.print(f"    refused, {reason}: {count}", markup=False)
    for sentence in report["images"]["skipped"]:
        screen.print(f"left out: {sentence}", markup=False, soft_wrap=True)


def _published(entry: CatalogEntry, split: str) -> str:
    if split in entry.samples:
        return str(entry.samples[split])
    return f"about {entry.about[split]}" if split in entry.about else "–"
