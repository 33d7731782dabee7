"""An evaluation report as a table for the terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = ("gIoU", "cIoU", "ncIoU", "F1", "N-acc", "T-acc", "Pr@0.5", "Pr@0.9", "oracle_gIoU", "oracle_cIoU")


def print_report(report: dict[str, Any]) -> None:
    """Prints what `maskselect.evaluation.evaluate` gives: one row a subset, then candidates and latency."""
    title = f"{report['model']} on {report['dataset']} {report['split']} (percent)"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("samples", *SHOWN):
        table.add_column(name, justify="right")
    for section in ("metrics", "by_kind", "by_targets"):
        for name, metrics in report[section].items():
            label = f"{name} targets" if section == "by_targets" else name
            table.add_row(label, str(metrics["samples"]), *(_cell(metrics[key]) for key in SHOWN))
        table.add_section()
    # Piped into a file there is no width to fit into, and a squeezed table would lose its numbers.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    latency = report["latency"]
    console.print(
        f"{report['candidates_per_image']} candidates an image; {latency['seconds_per_image']:.2f} s an image with "
        f"{latency['prompts_per_image']:.1f} prompts, {latency['seconds_per_prompt']:.2f} s a prompt"
    )
    for sentence in report.get("overlap", []):
        console.print(f"Beware: {sentence}.", highlight=False, markup=False)


def print_thresholds(found: dict[float, dict[str, float | None]], chosen: float) -> None:
    """Prints what `maskselect.calibration.sweep` gives, every fifth threshold and the chosen one, which is marked."""
    columns = ("F1", "gIoU", "cIoU", "N-acc", "T-acc")
    table = Table(title="percent on the validation samples", title_justify="left")
    for name in ("threshold", *columns):
        table.add_column(name, justify="right")
    for threshold, row in found.items():
        if round(100 * threshold) % 5 == 0 or threshold == chosen:
            mark = "* " if threshold == chosen else ""
            table.add_row(f"{mark}{threshold:.2f}", *(_cell(row[key]) for key in columns))
    Console().print(table)


def print_ceiling(found: dict[str, Any], title: str) -> None:
    """Prints what `maskselect.evaluation.measure_ceiling` gives."""
    names = [name for name in found if name not in ("images", "samples", "candidates_per_image")]
    table = Table(
        title=f"{title}: {found['images']} images, {found['samples']} samples (percent)", title_justify="left"
    )
    for name in ("candidates an image", *names):
        table.add_column(name, justify="right")
    table.add_row(str(found["candidates_per_image"]), *(_cell(found[name]) for name in names))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
