"""Published figures, to stand beside ours: what a paper reports for a data set and split, and where.

Percent. Only figures that were read in the paper or in its code's own logs are here; other candidates, other sizes of
image and other data for training make them a landmark, not a ranking.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One system on one split. measures: by the names of our reports."""

    system: str
    measures: dict[str, float]
    source: str


_RAS = "RAS, arXiv 2506.05342"
_VGENT = "VGent, arXiv 2512.11099, after third parties"
_GSVA = "log of gsva-7b-ft-gres, github.com/LeapLabTHU/GSVA"

PUBLISHED: dict[tuple[str, str], list[Published]] = {
    ("maskgroups", "validation"): [
        Published("RAS-13B, SAM candidates", {"gIoU": 50.98, "cIoU": 53.93}, _RAS),
        Published("RAS-13B, fine-tuned on ORES", {"gIoU": 64.77, "cIoU": 73.13}, _RAS),
        Published("RAS-13B, F1", {"F1": 50.89}, _VGENT),
        Published("VGent", {"gIoU": 68.42, "cIoU": 75.28, "F1": 71.47}, _VGENT),
        Published("oracle over SAM candidates", {"oracle_cIoU": 86.39}, _RAS),
    ],
    ("grefcoco", "val"): [Published("GSVA-7B", {"gIoU": 66.43, "cIoU": 63.19, "N-acc": 62.56, "T-acc": 99.62}, _GSVA)],
    ("grefcoco", "testA"): [
        Published("GSVA-7B", {"gIoU": 71.06, "cIoU": 69.87, "N-acc": 65.72, "T-acc": 98.69}, _GSVA)
    ],
    ("grefcoco", "testB"): [
        Published("GSVA-7B", {"gIoU": 62.20, "cIoU": 60.35, "N-acc": 60.72, "T-acc": 99.10}, _GSVA)
    ],
}
