"""Comparison of two evaluations of the same samples, with intervals of the differences."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from maskselect.backends.terminal import console, narrow_table, print_table
from maskselect.metrics.summary import LEAST_IMAGES, paired_difference
from maskselect.structures.scored import Scored


def compare(first: Sequence[Scored], second: Sequence[Scored], cases: int) -> dict[str, Any]:
    """Compare the IoU of each sample, second minus first.

    Args:
        first: scored samples.
        second: the same samples in the same order, see `maskselect.reports.records.in_order`.
        cases: number of the most changed samples to return.

    Returns:
        samples; differences: the mean in points with its 95 % interval, for all samples, with and without references,
        and by kind (interval and verdict are null below `LEAST_IMAGES` images); changed_most: the most changed samples.
    """
    parts: dict[str, list[int]] = {"overall": list(range(len(first)))}
    for place, row in enumerate(first):
        parts.setdefault("w/ mask-ref" if row.references else "w/o mask-ref", []).append(place)
        if row.kind:
            parts.setdefault(row.kind, []).append(place)
    differences = {}
    for name, places in parts.items():
        mean, edges = paired_difference([first[p] for p in places], [second[p] for p in places])
        differences[name] = {
            "samples": len(places),
            "images": len({first[p].image_id for p in places}),
            "difference": round(mean, 2),
            "interval": None if edges is None else [round(edge, 2) for edge in edges],
            "beyond_chance": None if edges is None else edges[0] > 0 or edges[1] < 0,
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


def print_comparison(comparison: dict[str, Any], first: str, second: str) -> None:
    """Print what `compare` returned, as two tables. first, second: names of the evaluations."""
    title = f"IoU of {second} minus {first}, points, paired"
    table = narrow_table("", "samples", "images", "difference", "95 % interval", "beyond chance")
    rows = comparison["differences"]
    for name, row in rows.items():
        cells = ("–", "–", "too few images")
        if row["interval"] is not None:
            low, high = row["interval"]
            sure = "yes" if row["beyond_chance"] else "no"
            cells = (f"{row['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}", sure)
        table.add_row(name, str(row["samples"]), str(row["images"]), *cells)
    print_table(table, title)
    if any(row["interval"] is None for row in rows.values()):
        console().print(f"Fewer than {LEAST_IMAGES} images: too few samples to show a difference.")
    cases = narrow_table("sample", "prompt", "targets", "IoU", "masks", words=2)
    for case in comparison["changed_most"]:
        iou, chosen = case["iou"], case["chosen"]
        changes = (f"{iou[0]:.2f} to {iou[1]:.2f}", f"{chosen[0]} to {chosen[1]}")
        cases.add_row(escape(case["sample"]), escape(case["prompt"]), str(case["targets"]), *changes)
    print_table(cases, "changed most")
