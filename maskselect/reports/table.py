"""Evaluation reports as tables for the terminal."""

from typing import Any

from maskselect.backends.terminal import console, narrow_table, print_table
from maskselect.metrics.protocols import RECALL

SHOWN = (
    "gIoU", "cIoU", "ncIoU", "F1", "N-acc", "T-acc", "Pr@0.5", "Pr@0.9", "Acc@0.5", "oracle_gIoU", "oracle_cIoU",
)  # fmt: skip


def counted(number: float, one: str) -> str:
    """A number and its noun.

    >>> counted(1, "target"), counted(0, "target"), counted(1.5, "candidate")
    ('1 target', '0 targets', '1.5 candidates')
    """
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def targets_label(bucket: str) -> str:
    """The label of a row of `by_targets`, whose names are numbers and ranges: "1 target", "2-5 targets"."""
    return "1 target" if bucket == "1" else f"{bucket} targets"


def print_report(report: dict[str, Any]) -> None:
    """Print a report of `maskselect.evaluate`: one row per subset, then candidates and latency."""
    title = f"{report['model']} on {report['dataset']} {report['split']}: percent of n samples"
    shown = [name for name in SHOWN if name in report["metrics"]["overall"]]
    names = [name.replace("@", "@\n").replace("_", "\n") for name in shown]
    table = narrow_table("", "n", *names)
    for section in ("metrics", "by_kind", "by_targets"):
        for name, metrics in report[section].items():
            label = targets_label(name) if section == "by_targets" else name
            table.add_row(label, str(metrics["samples"]), *(_cell(metrics[key]) for key in shown))
        table.add_section()
    print_table(table, title)
    screen, latency = console(), report["latency"]
    prompts = counted(round(latency["prompts_per_image"], 1), "prompt")
    count = report["candidates_per_image"]
    pool = "" if count is None else f"{counted(count, 'candidate')} an image; "
    image = f"{latency['seconds_per_image']:.2f} s an image with {prompts}"
    screen.print(f"{pool}{image}, {latency['seconds_per_prompt']:.2f} s a prompt")
    _print_texts(report)
    if report.get("threshold"):
        screen.print(f"threshold {report['threshold']}", markup=False)
    if left_out := report.get("left_out", {}).get("count"):
        screen.print(f"Beware: {left_out} samples were left out.")
    for sentence in report.get("overlap", []):
        screen.print(f"Beware: {sentence}.", markup=False)


def print_video_report(report: dict[str, Any]) -> None:
    """Print a report of `evaluation.videos.evaluate_videos`."""
    table = narrow_table("measure", "percent", words=0)
    for name, value in report["metrics"]["overall"].items():
        if name != "samples":
            table.add_row(name, _cell(value))
    if absent := report.get("no_target"):
        table.add_row("N-acc", _cell(absent["N-acc"]))
    table.add_section()
    for part, metrics in report.get("by_part", {}).items():
        table.add_row(f"J&F, {part}", _cell(metrics["J&F"]))
    samples = counted(report["samples"], "sample")
    title = f"{report['model']} on {report['dataset']} {report['split']}: {samples}"
    if reason := report.get("no_metrics"):
        console().print(f"{title}; {reason}", markup=False)
    else:
        print_table(table, title)
    _print_texts(report)
    for sentence in report.get("overlap", []):
        console().print(f"Beware: {sentence}.", markup=False)


def print_semantic_report(report: dict[str, Any]) -> None:
    """Print a report of `evaluation.semantic.evaluate_semantic`: the IoU of each class, then the means."""
    table = narrow_table("class", "IoU")
    for name, value in report["by_class"].items():
        table.add_row(name, _cell(value))
    table.add_section()
    for name, value in report["metrics"]["overall"].items():
        if name != "samples":
            table.add_row(name, _cell(value))
    images = counted(report["images"], "image")
    print_table(table, f"{report['model']} on {report['dataset']} {report['split']}: percent, {images}")
    console().print(f"{report['latency']['seconds_per_image']:.2f} s an image")
    _print_texts(report)
    for sentence in report["overlap"]:
        console().print(f"Beware: {sentence}.", markup=False)


def print_thresholds(reports: dict[float, dict[str, float | None]], chosen: float) -> None:
    """Print the results of `evaluation.calibration`, every fifth hundredth, and the chosen threshold with a mark."""
    known = ("F1", "gIoU", "cIoU", "all", "J&F", "N-acc", "T-acc")
    columns = [name for name in known if name in reports[chosen]]
    table = narrow_table("threshold", *columns, words=0)
    for threshold, row in reports.items():
        if round(100 * threshold) % 5 == 0 or threshold == chosen:
            mark = "* " if threshold == chosen else ""
            table.add_row(f"{mark}{threshold:.2f}", *(_cell(row[key]) for key in columns))
    print_table(table, "percent on the validation samples")


def print_ceiling(ceiling: dict[str, Any], title: str) -> None:
    """Print what `evaluation.samples.measure_ceiling` returned: the oracle, and both forms of recall by IoU."""
    counts = f"{counted(ceiling['images'], 'image')}, {counted(ceiling['samples'], 'sample')}"
    table = narrow_table("IoU at least", "any candidate", "one to one")
    for name in RECALL:
        cells = (_cell(ceiling[key]) for key in (name, f"matched_{name}"))
        table.add_row(name.removeprefix("recall@").replace(".5:.95", "mean, 0.5 to 0.95"), *cells)
    print_table(table, f"{title}: {counts} (percent)")
    console().print(
        f"{counted(ceiling['candidates_per_image'], 'candidate')} an image; oracle gIoU "
        f"{_cell(ceiling['oracle_gIoU'])}, cIoU {_cell(ceiling['oracle_cIoU'])}"
    )


def _print_texts(report: dict[str, Any]) -> None:
    """Print `evaluation.samples.text_shares`, as far as there is something to report."""
    outcomes = {"undecoded": "could not be decoded", "repaired": "were repaired", "cut": "end at the maximum length"}
    shares = [f"{report[name]} % {outcome}" for name, outcome in outcomes.items() if report.get(name)]
    if shares:
        console().print(f"Beware: of the answers {', '.join(shares)}.")


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
