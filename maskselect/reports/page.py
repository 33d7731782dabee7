"""An evaluation as one HTML page without other files."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from maskselect.metrics.summary import LEAST_IMAGES
from maskselect.reports import charts
from maskselect.reports.cases import Case
from maskselect.reports.published import PUBLISHED, lacking
from maskselect.reports.rendering import FOLDER, render
from maskselect.reports.table import SHOWN, counted, targets_label
from maskselect.structures.scored import Scored

LEAST_SCORES = 50
"""Minimum number of scores for the reliability diagram."""
_SECTIONS = {"metrics": "", "by_kind": "By kind of prompt", "by_targets": "By number of targets", "by_size": "By size"}


def draw_page(
    report: Mapping[str, Any], rows: Sequence[Scored], cases: Mapping[str, Sequence[Case]], command: str = ""
) -> str:
    """The page.

    Args:
        report: the report of `rows`, see `maskselect.evaluation.samples.build_report`.
        rows: the scored samples.
        cases: from `CaseKeeper`.
        command: the command line that reproduces the numbers.
    """
    dataset, split = report["dataset"], report["split"]
    further = {"parts": ", ".join(report.get("parts", ())), "command": command}
    return render(
        "page.html.jinja",
        style=Markup((FOLDER / "page.css").read_text()),
        report=report,
        sections=_SECTIONS,
        least_images=LEAST_IMAGES,
        published=PUBLISHED.get((dataset, split)),
        lacking=lacking(dataset, split, report["samples"]),
        charts=_charts(rows),
        confusion={"nothing answers": _answered(rows, True), "something answers": _answered(rows, False)},
        cases=cases,
        facts=dict(report["protocol"]) | {name: text for name, text in further.items() if text},
        columns_of=_columns_of,
        counted=counted,
        targets_label=targets_label,
    )


def _columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The metrics that at least one row has."""
    present = {name for row in rows for name, value in row.items() if value is not None}
    return [name for name in SHOWN if name in present]


def _charts(rows: Sequence[Scored]) -> list[Markup]:
    scores = [score for row in rows for score in row.scores]
    right = [ok for row in rows for ok in row.right]
    ious = [row.iou for row in rows if not row.no_target]
    figures = [charts.histogram(ious, "IoU of the answer, samples with targets")]
    if len(scores) >= LEAST_SCORES:
        figures.append(charts.reliability(scores, right, "Candidates: is a score of 0.8 right 8 times in 10?"))
    return figures


def _answered(rows: Sequence[Scored], no_target: bool) -> tuple[int, int]:
    """The numbers of samples, without or with targets, that were answered with nothing and with masks."""
    some = [row for row in rows if row.no_target == no_target]
    return sum(row.chosen == 0 for row in some), sum(row.chosen > 0 for row in some)
