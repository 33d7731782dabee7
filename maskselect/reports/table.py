"""An evaluation report as a table for the terminal."""

from typing import Any

from maskselect.backends.terminal import console, narrow_table

SHOWN = ("gIoU", "cIoU", "ncIoU", "F1", "N-acc", "T-acc", "Pr@0.5", "Pr@0.9", "oracle_gIoU", "oracle_cIoU")


def print_report(report: dict[str, Any]) -> None:
    """Prints what `maskselect.evaluation.evaluate` gives: one row a subset, then candidates and latency."""
    title = f"{report['model']} on {report['dataset']} {report['split']}: percent of n samples"
    names = [name.replace("@", "@\n").replace("_", "\n") for name in SHOWN]
    table = narrow_table("", "n", *names, title=title)
    for section in ("metrics", "by_kind", "by_targets"):
        for name, metrics in report[section].items():
            label = f"{name} targets" if section == "by_targets" else name
            table.add_row(label, str(metrics["samples"]), *(_cell(metrics[key]) for key in SHOWN))
        table.add_section()
    screen = console()
    screen.print(table)
    latency = report["latency"]
    screen.print(
        f"{report['candidates_per_image']} candidates an image; {latency['seconds_per_image']:.2f} s an image with "
        f"{latency['prompts_per_image']:.1f} prompts, {latency['seconds_per_prompt']:.2f} s a prompt"
    )
    for sentence in report.get("overlap", []):
        screen.print(f"Beware: {sentence}.", markup=False)


def print_thresholds(found: dict[float, dict[str, float | None]], chosen: float) -> None:
    """Prints what `maskselect.calibration.sweep` gives, every fifth threshold and the chosen one, which is marked."""
    columns = ("F1", "gIoU", "cIoU", "N-acc", "T-acc")
    table = narrow_table("threshold", *columns, title="percent on the validation samples", words=0)
    for threshold, row in found.items():
        if round(100 * threshold) % 5 == 0 or threshold == chosen:
            mark = "* " if threshold == chosen else ""
            table.add_row(f"{mark}{threshold:.2f}", *(_cell(row[key]) for key in columns))
    console().print(table)


def print_ceiling(found: dict[str, Any], title: str) -> None:
    """Prints what `maskselect.evaluation.measure_ceiling` gives."""
    table = narrow_table("", "percent", title=f"{title}: {found['images']} images, {found['samples']} samples")
    for name, value in found.items():
        if name not in ("images", "samples", "candidates_per_image"):
            table.add_row(name, _cell(value))
    screen = console()
    screen.print(table)
    screen.print(f"{found['candidates_per_image']} candidates an image")


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
