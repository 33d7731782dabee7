"""An evaluation as one HTML page that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from maskselect.metrics.summary import LEAST_IMAGES
from maskselect.reports import charts
from maskselect.reports.cases import Case
from maskselect.reports.published import PUBLISHED, lacking
from maskselect.reports.table import counted, targets_label
from maskselect.structures.scored import Scored

COLUMNS = ("gIoU", "cIoU", "ncIoU", "F1", "N-acc", "T-acc", "Pr@0.5", "Pr@0.9", "oracle_gIoU", "oracle_cIoU")
_SECTIONS = {"metrics": "", "by_kind": "By kind of prompt", "by_targets": "By number of targets", "by_size": "By size"}
LEAST_SCORES = 50
"""Candidates below which the chart of their scores says nothing."""
_STYLE = (Path(__file__).parent / "page.css").read_text()


def _pool(report: Mapping[str, Any]) -> str:
    """The size of the pools; nothing for a system without candidates."""
    count = report["candidates_per_image"]
    return "" if count is None else f"{counted(count, 'candidate')} an image; "


def draw_page(
    report: Mapping[str, Any], rows: Sequence[Scored], cases: Mapping[str, Sequence[Case]], command: str = ""
) -> str:
    """The page.

    report: what `maskselect.evaluation.samples.build_report` gives, of `rows`.  cases: from `CaseKeeper`.
    command: what to type to get these numbers again.
    """
    title = f"{report['model']} on {report['dataset']} {report['split']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{counted(report['samples'], 'sample')}, {counted(report['images'], 'image')}, "
        f"{_pool(report)}percent, {_sureness(report)}.</p>",
        *(f'<p class="beware">Beware: {escape(sentence)}.</p>' for sentence in report.get("overlap", [])),
        *_left_out(report),
        _headline(report),
        *(_table(report, name, heading) for name, heading in _SECTIONS.items() if report.get(name)),
        _published(report),
        "<h2>Distributions</h2>",
        _charts(rows),
        "<h2>Does it know when nothing answers?</h2>",
        _confusion(rows),
        *(_cases(kind, some) for kind, some in cases.items()),
        "<h2>How it was measured</h2>",
        _protocol(report, command),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _sureness(report: Mapping[str, Any]) -> str:
    if report.get("intervals", {}).get("overall"):
        return "with 95 % intervals from a bootstrap over images"
    return f"without intervals: fewer than {LEAST_IMAGES} images tell too little about others"


def _left_out(report: Mapping[str, Any]) -> list[str]:
    """What the numbers do not count, where there is any."""
    left_out = report.get("left_out", {})
    if not left_out.get("count"):
        return []
    listed = "".join(f"<li>{escape(one['reason'])} ({len(one['names'])})</li>" for one in left_out["reasons"])
    return [f'<p class="beware">{left_out["count"]} samples were left out:</p><ul>{listed}</ul>']


def _headline(report: Mapping[str, Any]) -> str:
    overall, edges = report["metrics"]["overall"], report.get("intervals", {}).get("overall", {})
    boxes = []
    for name in ("gIoU", "cIoU", "F1", "N-acc", "T-acc"):
        if overall.get(name) is not None:
            span = "<br><span>{:.1f} to {:.1f}</span>".format(*edges[name]) if name in edges else ""
            boxes.append(f"<div><b>{overall[name]:.1f}</b>{name}{span}</div>")
    return f'<div class="head">{"".join(boxes)}</div>'


def _table(report: Mapping[str, Any], section: str, heading: str) -> str:
    shown = [name for name in COLUMNS if any(row.get(name) is not None for row in report[section].values())]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "samples", *shown))
    body = []
    for label, row in report[section].items():
        edges = report.get("intervals", {}).get(label, {}) if section == "metrics" else {}
        cells = "".join(f"<td>{_cell(row.get(name), edges.get(name))}</td>" for name in shown)
        shown_label = targets_label(label) if section == "by_targets" else label
        body.append(f"<tr><td>{escape(shown_label)}</td><td>{row['samples']}</td>{cells}</tr>")
    title = f"<h2>{heading}</h2>" if heading else ""
    return f'{title}<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def _cell(value: float | None, edges: Sequence[float] | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" + (f"<small>{edges[0]:.1f} to {edges[1]:.1f}</small>" if edges else "")


def _published(report: Mapping[str, Any]) -> str:
    others = PUBLISHED.get((report["dataset"], report["split"]))
    if not others:
        return ""
    if reason := lacking(report["dataset"], report["split"], report["samples"]):
        return f"<p>{escape(reason)}</p>"
    shown = [name for name in COLUMNS if any(name in other.measures for other in others)]
    overall = report["metrics"]["overall"]
    rows = [(f"{report['model']} (this run)", overall, "")]
    rows += [(other.system, other.measures, other.source) for other in others]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *shown, "source"))
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{_cell(found.get(key))}</td>' for key in shown)}"
        f"<td>{escape(source)}</td></tr>"
        for name, found, source in rows
    )
    return f'<h2>Published beside it</h2><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _charts(rows: Sequence[Scored]) -> str:
    aimed = [row.iou for row in rows if not row.no_target]
    scores = [score for row in rows for score in row.scores]
    right = [ok for row in rows for ok in row.right]
    drawn = [charts.histogram(aimed, "IoU of the answer, samples with targets")]
    if len(scores) >= LEAST_SCORES:
        drawn.append(charts.reliability(scores, right, "Candidates: is a score of 0.8 right 8 times in 10?"))
    return f'<div class="charts">{"".join(f"<figure>{chart}</figure>" for chart in drawn)}</div>'


def _confusion(rows: Sequence[Scored]) -> str:
    def count(none: bool, answered: bool) -> int:
        return sum(row.no_target == none and (row.chosen > 0) == answered for row in rows)

    body = "".join(
        f"<tr><td>{label}</td><td>{count(none, False)}</td><td>{count(none, True)}</td></tr>"
        for label, none in (("nothing answers", True), ("something answers", False))
    )
    head = "<tr><th></th><th>answered with nothing</th><th>answered with masks</th></tr>"
    return f'<div class="wide"><table>{head}{body}</table></div>'


def _cases(kind: str, cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    figures = "".join(
        f'<figure><img src="{case.source}" alt="targets, answer and candidates">'
        f"<figcaption><b>{escape(case.row.prompt)}</b><br>IoU {case.row.iou:.2f}, {case.row.chosen} chosen of "
        f"{case.row.candidates}, {counted(case.row.targets, 'target')}; {escape(case.row.sample_id)}"
        "</figcaption></figure>"
        for case in cases
    )
    note = "<p>Left the targets, then the answer, then all candidates; references in magenta.</p>"
    return f'<h2>{kind.capitalize()}</h2>{note}<div class="cases">{figures}</div>'


def _protocol(report: Mapping[str, Any], command: str) -> str:
    facts = dict(report["protocol"]) | ({"command": command} if command else {})
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>' for k, v in facts.items())}</dl>"
