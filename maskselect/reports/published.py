"""Published figures of papers for a data set and split, in percent, with their sources.

They are copied from the papers or from the logs of their code. Because candidates, image sizes and training data
differ, they are a landmark and no ranking. They hold for whole splits, so only runs of whole splits are compared.
"""

from dataclasses import dataclass

from maskselect.data.catalog import CATALOG


@dataclass(frozen=True)
class Published:
    """One system on one split. measures: by the names in our reports."""

    system: str
    measures: dict[str, float]
    source: str


WHOLE = 0.9
"""Share of a split's published number of samples, which is second-hand for some, from which a run counts as whole."""
LEAST_SAMPLES = 500
"""Minimum for a whole split whose number of samples is unknown."""

_RAS = "RAS, arXiv 2506.05342"
_VGENT = "VGent, arXiv 2512.11099, after third parties"
_GSVA = "log of gsva-7b-ft-gres, github.com/LeapLabTHU/GSVA"

_LLMSEG = "LLM-Seg, arXiv 2404.08767"
_INSTRUCTSEG = "InstructSeg, arXiv 2412.14006"
_TEXT4SEG = "Text4Seg++, arXiv 2509.06321"


def _res(
    split: tuple[str, str], instructseg: float, seven: float, refined: float
) -> dict[tuple[str, str], list[Published]]:
    """cIoU of one split of the RefCOCO family."""
    return {
        split: [
            Published("InstructSeg", {"cIoU": instructseg}, _INSTRUCTSEG),
            Published("Text4Seg++ 7B", {"cIoU": seven}, _TEXT4SEG),
            Published("Text4Seg++ 14B, refined", {"cIoU": refined}, _TEXT4SEG),
        ]
    }


def _gres(split: str, gsva: tuple[float, ...], seven: tuple[float, float]) -> dict[tuple[str, str], list[Published]]:
    """One split of gRefCOCO."""
    names = ("gIoU", "cIoU", "N-acc", "T-acc")
    return {
        ("grefcoco", split): [
            Published("GSVA-7B", dict(zip(names, gsva, strict=True)), _GSVA),
            Published("Text4Seg++ 7B", dict(zip(names[:2], seven, strict=True)), _TEXT4SEG),
        ]
    }


PUBLISHED: dict[tuple[str, str], list[Published]] = {
    ("maskgroups", "validation"): [
        Published("RAS-13B, SAM candidates", {"gIoU": 50.98, "cIoU": 53.93}, _RAS),
        Published("RAS-13B, fine-tuned on ORES", {"gIoU": 64.77, "cIoU": 73.13}, _RAS),
        Published("RAS-13B, F1", {"F1": 50.89}, _VGENT),
        Published("VGent", {"gIoU": 68.42, "cIoU": 75.28, "F1": 71.47}, _VGENT),
        Published("oracle over SAM candidates", {"oracle_cIoU": 86.39}, _RAS),
    ],
    **_gres("val", (66.43, 63.19, 62.56, 99.62), (73.5, 69.3)),
    **_gres("testA", (71.06, 69.87, 65.72, 98.69), (72.7, 71.9)),
    **_gres("testB", (62.20, 60.35, 60.72, 99.10), (65.8, 65.6)),
    **_res(("refcoco", "val"), 85.8, 81.5, 82.5),
    **_res(("refcoco", "testA"), 86.6, 83.6, 84.9),
    **_res(("refcoco", "testB"), 84.0, 79.6, 79.5),
    **_res(("refcoco+", "val"), 80.1, 76.9, 77.9),
    **_res(("refcoco+", "testA"), 83.8, 81.2, 82.5),
    **_res(("refcoco+", "testB"), 75.6, 71.4, 72.6),
    **_res(("refcocog", "val"), 79.3, 79.6, 79.4),
    **_res(("refcocog", "test"), 80.3, 80.4, 79.7),
    ("reasonseg", "val"): [
        Published("LLM-Seg, not trained on it", {"gIoU": 47.4, "cIoU": 35.4, "ncIoU": 43.5}, _LLMSEG),
        Published("LLM-Seg, 10 epochs", {"gIoU": 52.3, "cIoU": 47.5, "ncIoU": 48.8}, _LLMSEG),
        Published("LLM-Seg, 20 epochs", {"gIoU": 55.4, "cIoU": 45.6, "ncIoU": 51.0}, _LLMSEG),
        Published("InstructSeg", {"gIoU": 61.9, "cIoU": 65.2}, _INSTRUCTSEG),
        Published("Text4Seg++, refined", {"gIoU": 59.1, "cIoU": 49.5}, _TEXT4SEG),
    ],
    ("reasonseg", "test"): [Published("Text4Seg++, refined", {"gIoU": 57.1, "cIoU": 52.1}, _TEXT4SEG)],
    ("llm-seg40k", "validation"): [
        Published("LLM-Seg, not trained on it", {"gIoU": 36.02, "cIoU": 39.42}, _LLMSEG),
        Published("LLM-Seg, fine-tuned", {"gIoU": 45.47, "cIoU": 54.18}, _LLMSEG),
        Published("LISA, fine-tuned", {"gIoU": 37.59, "cIoU": 48.49}, _LLMSEG),
    ],
    ("muse", "val"): [Published("Text4Seg++, refined", {"gIoU": 70.4, "cIoU": 57.7}, _TEXT4SEG)],
    ("rrsisd", "val"): [
        Published("Text4Seg++", {"gIoU": 64.1, "cIoU": 75.8, "Acc@0.5": 74.8}, _TEXT4SEG),
    ],
    ("rrsisd", "test"): [
        Published("Text4Seg++", {"gIoU": 62.8, "cIoU": 74.2, "Acc@0.5": 73.2}, _TEXT4SEG),
    ],
    ("earthreason", "val"): [Published("Text4Seg++", {"gIoU": 71.9, "cIoU": 69.8}, _TEXT4SEG)],
    ("earthreason", "test"): [Published("Text4Seg++", {"gIoU": 73.0, "cIoU": 65.6}, _TEXT4SEG)],
}


def lacking(dataset: str, split: str, samples: int) -> str:
    """A sentence if a run has too few samples to be compared with published figures, else ""."""
    entry = CATALOG.get(dataset)
    whole = (entry.samples.get(split) or entry.about.get(split)) if entry is not None else None
    if samples >= (LEAST_SAMPLES if whole is None else WHOLE * whole):
        return ""
    size = "" if whole is None else f" of about {whole:,} samples"
    return f"Published figures are of the whole split{size}; this run has {samples:,}, so they are not shown beside it."
