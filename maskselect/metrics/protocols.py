"""The published protocols of referring segmentation, as data.

Evaluators differ in how they count empty masks, where they add an epsilon, at which size they compare masks, and over
which samples they take a share. `ReferringMetrics(protocol=NAME)` follows one of them. docs/guide/metrics.md compares
them. A protocol of your own is `dataclasses.replace(protocol_named("lisa"), strict=True)`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from maskselect.metrics.canvas import letterbox, stretch, stretch_floor
from maskselect.metrics.functional import CANVAS, EmptyRule

CORE = (
    "gIoU", "cIoU", "ncIoU", "N-acc", "T-acc", "F1", "F1@.5:.95", "F1 micro",
    "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9", "oracle_gIoU", "oracle_cIoU",
)  # fmt: skip
RECALL_AT = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALL = (*(f"recall@{limit}" for limit in RECALL_AT), "recall@.5:.95")
MATCHED_RECALL = tuple(f"matched_{name}" for name in RECALL)
ALL = (*CORE, "mIoU", "Acc@0.5", *RECALL, *MATCHED_RECALL)
Fit = Literal["stretch", "stretch-floor", "letterbox"]
Share = Literal["targets", "all"]
_FITS = {
    "stretch": (stretch, "stretched, nearest neighbour by pixel centres, as Pillow"),
    "stretch-floor": (stretch_floor, "stretched, nearest neighbour, source index rounded down"),
    "letterbox": (letterbox, "letterboxed, nearest neighbour"),
}
_REJECTED = "a right 'nothing' is IoU 1; the mask of a target that was rejected still counts; a false alarm is IoU 0, "
_EMPTY_RULES = {
    "gres": "a right 'nothing' is IoU 1, a wrong one IoU 0 without intersection; a false alarm is IoU 0 and its pixels "
    "join the summed union",
    "gsva": f"{_REJECTED}and its pixels join the summed union",
    "refzom": f"{_REJECTED}and adds nothing to the summed union",
    "lisa": "pixels alone count, and an empty union is IoU 1",
    "zero": "pixels alone count, and an empty union is IoU 0",
}


@dataclass(frozen=True)
class Protocol:
    """The rules of an evaluator. The defaults are our own protocol: gRefCOCO's decisions at each image's own size.

    Attributes:
        source: the evaluator, for reports.
        empty_rule: how empty masks count, see `functional.overlap`.
        none_pixels: an answer with fewer pixels is "nothing" if the model reports no decision; with 0 only an answer
            without a mask is.
        target_by_pixels: a sample has no target if its true masks are empty, instead of if it has no true mask.
        iou_epsilon, sum_epsilon, count_epsilon: added to the union of a sample, the summed union, the sample count.
        side: side of the square canvas on which masks are compared, in pixels; None for each image's own size.
        fit: how masks are resized to the canvas, nearest neighbour: "stretch" by pixel centres (Pillow),
            "stretch-floor" with the source index rounded down (torch), "letterbox" centred with the aspect kept.
        ignores: ignored pixels leave prediction and truth; otherwise they are background.
        strict: Pr@X requires IoU > X instead of IoU >= X.
        share: Pr@X is the share of the samples with a target ("targets"), or of all samples ("all").
        paired: masks are compared one to one instead of union against union. gIoU is then the sum of the pairs' IoUs
            over the sum, over images, of max(predicted masks, true masks).
        measures: the names that are reported.
    """

    name: str = "maskselect"
    source: str = "our own, after gRefCOCO's evaluator"
    empty_rule: EmptyRule = "gres"
    none_pixels: int = 0
    target_by_pixels: bool = False
    iou_epsilon: float = 0.0
    sum_epsilon: float = 0.0
    count_epsilon: float = 0.0
    side: int | None = None
    fit: Fit = "stretch"
    ignores: bool = True
    strict: bool = False
    share: Share = "targets"
    paired: bool = False
    measures: tuple[str, ...] = CORE

    def to_canvas(self, masks: Tensor) -> Tensor:
        """Resize (K, H, W) bool to (K, side, side) bool; unchanged without a canvas."""
        return masks if self.side is None else _FITS[self.fit][0](masks, self.side)

    def says_none(self, prediction: Tensor) -> bool:
        """Whether predicted masks (M, H, W) bool mean "nothing", if the model reports no decision."""
        return len(prediction) == 0 or (self.none_pixels > 0 and int(prediction.any(0).sum()) < self.none_pixels)

    def has_no_target(self, targets: Tensor) -> bool:
        """Whether true masks (G, H, W) bool mean that the sample has no target."""
        return len(targets) == 0 or (self.target_by_pixels and not bool(targets.any()))

    def describe(self) -> dict[str, str]:
        """The rules in words, made from the fields, for reports.

        >>> Protocol(side=480).describe()["resolution"]
        '480 x 480, stretched, nearest neighbour by pixel centres, as Pillow; ncIoU on 1024 x 1024'
        """
        size = "each image's own size" if self.side is None else f"{self.side} x {self.side}, {_FITS[self.fit][1]}"
        none = {0: "without a mask", 1: "without a pixel"}.get(self.none_pixels, f"below {self.none_pixels} pixels")
        decision = f"the model's decision counts; without one, an answer {none} says 'nothing'"
        pixels = self.empty_rule in ("lisa", "zero")
        mean = "the sum over one-to-one pairs of masks, over max(masks given, masks true) summed over images"
        epsilons = {
            "the union of a sample": self.iou_epsilon,
            "the summed union": self.sum_epsilon,
            "the number of samples": self.count_epsilon,
        }
        joined = [f"{value:g} joins {what}" for what, value in epsilons.items() if value]
        return {
            "source": self.source,
            "resolution": f"{size}; ncIoU on {CANVAS} x {CANVAS}",
            "empty answers": f"{_EMPTY_RULES[self.empty_rule]}; {'for N-acc and T-acc ' if pixels else ''}{decision}",
            "no target": f"no true {'pixel' if self.target_by_pixels else 'mask'}",
            "ignored pixels": "leave both masks" if self.ignores else "are background",
            "gIoU": mean if self.paired else "mean over samples, union of masks against union of masks",
            "Pr@X": f"IoU {'>' if self.strict else '>='} X, share of "
            f"{'samples with a target' if self.share == 'targets' else 'all samples'}",
            "epsilons": ", ".join(joined) or "none",
        }


# ReLA (arXiv 2306.00968) scales polygons before it draws them; here drawn masks are scaled, which moves outlines by up
# to one pixel. Without a no-target sample ReLA writes N-acc as 0; here it is undefined.
_GREFCOCO = Protocol(
    "grefcoco",
    "ReLA's evaluator of gRefCOCO, github.com/henghuiding/ReLA",
    none_pixels=50,
    side=480,
    ignores=False,
    measures=ALL,
)
# GSVA (arXiv 2312.10103) differs from ReLA for a target that was wrongly rejected: its mask still counts.
_GSVA = Protocol(
    "gsva",
    "GSVA's eval_gres, github.com/LeapLabTHU/GSVA",
    empty_rule="gsva",
    none_pixels=1,
    target_by_pixels=True,
    iou_epsilon=1e-8,
    sum_epsilon=1e-10,
    count_epsilon=1e-5,
    measures=ALL,
)
# LISA (arXiv 2308.00692) knows no decision: N-acc and T-acc are our addition.
_LISA = replace(
    _GSVA,
    name="lisa",
    source="LISA's validate, github.com/dvlab-research/LISA",
    empty_rule="lisa",
    iou_epsilon=1e-5,
)
_LLMSEG = replace(  # arXiv 2404.08767
    _LISA, name="llmseg", source="LLM-Seg's validate_llmseg.py, github.com/wangjunchi/LLMSeg", iou_epsilon=1e-8
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(),
        _GREFCOCO,
        _GSVA,
        replace(
            _GSVA,
            name="gsva-refzom",
            source="GSVA's eval_gres on Ref-ZOM, github.com/LeapLabTHU/GSVA",
            empty_rule="refzom",
        ),
        _LISA,
        replace(  # arXiv 2501.04001; LISA's epsilon in the count comes from adding up processes
            _LISA,
            name="sa2va",
            source="Sa2VA's RESDataset.evaluate, github.com/bytedance/Sa2VA; Text4Seg's and PSALM's scripts",
            count_epsilon=0.0,
        ),
        replace(  # pixels labelled 255 are given as `ignore`
            _LISA, name="reasonseg", source="LISA's validate on ReasonSeg, github.com/dvlab-research/LISA"
        ),
        _LLMSEG,
        replace(  # on the canvas of ncIoU, so its cIoU is ncIoU
            _LLMSEG,
            name="llmseg-1024",
            source="LLM-Seg's training.py, github.com/wangjunchi/LLMSeg",
            side=CANVAS,
            fit="stretch-floor",
        ),
        Protocol(  # arXiv 2312.12470, for RRSIS-D; its mIoU is gIoU
            "rmsin",
            "RMSIN's test.py, github.com/Lsan2401/RMSIN; LAVT's",
            empty_rule="zero",
            none_pixels=1,
            target_by_pixels=True,
            side=480,
            ignores=False,
            share="all",
            measures=ALL,
        ),
        replace(  # arXiv 2504.09644, for EarthReason
            _LISA,
            name="segearth",
            source="SegEarth-R1's eval.py, github.com/earth-insights/SegEarth-R1",
            count_epsilon=0.0,
            side=1024,
            fit="letterbox",
            strict=True,
            share="all",
        ),
        # arXiv 2312.02228. An update is an image with one question; `summary.add_up` counts the masks of an image's
        # questions together. PixelLM matches masks by logits; masks have none, so the greatest summed IoU matches.
        replace(_LISA, name="muse", source="PixelLM's ar_validate, github.com/MaverickRen/PixelLM", paired=True),
    )
}


def protocol_named(name: str) -> Protocol:
    """Look up a protocol.

    Raises:
        ValueError: no protocol has this name; the message lists the names.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol of referring segmentation is called {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
