"""Two evaluations of the same samples: what changed, by how much, and whether that could be chance."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from maskselect.metrics.summary import paired_difference
from maskselect.structures.scored import Scored


def compare(first: Sequence[Scored], second: Sequence[Scored], cases: int) -> dict[str, Any]:
    """Mean difference of the IoU of each sample (second minus first, points) with its 95 % interval, for all samples,
    with and without references, and by kind; then the `cases` samples that changed most.

    Both hold the same samples in the same order, see `maskselect.reports.records.in_order`.
    """
    parts: dict[str, list[int]] = {"overall": list(range(len(first)))}
    for place, row in enumerate(first):
        parts.setdefault("w/ mask-ref" if row.references else "w/o mask-ref", []).append(place)
        if row.kind:
            parts.setdefault(row.kind, []).append(place)
    differences = {}
    for name, places in parts.items():
        mean, low, high = paired_difference([first[p] for p in places], [second[p] for p in places])
        differences[name] = {
            "samples": len(places),
            "difference": round(mean, 2),
            "interval": [round(low, 2), round(high, 2)],
        }
    order = sorted(range(len(first)), key=lambda place: -abs(second[place].iou - first[place].iou))[:cases]
    changed = [
        {
            "sample": first[place].sample_id,
            "prompt": first[place].prompt,
            "iou": [first[place].iou, second[place].iou],
            "chosen": [first[place].chosen, second[place].chosen],
            "targets": first[place].targets,
        }
        for place in order
        if second[place].iou != first[place].iou
    ]
    return {"samples": len(first), "differences": differences, "changed_most": changed}


def print_comparison(found: dict[str, Any], first: str, second: str) -> None:
    """As two tables."""
    table = Table(title=f"IoU of {second} minus {first}, points, paired", title_justify="left")
    for name in ("", "samples", "difference", "95 % interval", "beyond chance"):
        table.add_column(name, justify="right" if name else "left")
    for name, row in found["differences"].items():
        low, high = row["interval"]
        sure = "yes" if low > 0 or high < 0 else "no"
        table.add_row(name, str(row["samples"]), f"{row['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}", sure)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    cases = Table("sample", "prompt", "targets", "IoU", "masks", title="changed most", title_justify="left")
    for case in found["changed_most"]:
        iou, chosen = case["iou"], case["chosen"]
        told = (f"{iou[0]:.2f} to {iou[1]:.2f}", f"{chosen[0]} to {chosen[1]}")
        cases.add_row(case["sample"], case["prompt"], str(case["targets"]), *told)
    console.print(cases)
