"""`Protocol`: the rules of an evaluator of referring segmentation as data, and the names of what is measured."""

from dataclasses import dataclass
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
    """Our own: the decisions of gRefCOCO's evaluator, at each image's own size, where an empty group says "nothing".

    What a field may say, and here says:

    source: whose evaluator this is, for reports.
    empty_rule: what empty masks count for, see `functional.overlap`.
    none_pixels: an answer with fewer pixels says "nothing" where the model gives no decision of its own; with 0 only
        an answer of no mask does.
    target_by_pixels: a sample has no target when its true masks are empty, not when there is no true mask.
    iou_epsilon, sum_epsilon, count_epsilon: joins the union of a sample, the summed union, the number of samples.
    side: masks are compared on a square canvas of so many pixels a side, or at their own size (None).
    fit: how they come there, nearest neighbour: "stretch" to the canvas by pixel centres (Pillow), "stretch-floor" with
        the source index rounded down (torch), or "letterbox", centred with its aspect kept.
    ignores: pixels given as `ignore` leave prediction and truth; otherwise they are background.
    strict: Pr@X asks for IoU > X, not IoU >= X.
    share: Pr@X is the share of "targets", the samples that have one, or of "all".
    paired: one true mask against one answered mask, matched one to one, instead of union against union. gIoU is then
        the sum of the pairs' IoUs over the sum of max(masks given, masks true) over images.
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
        """(K, H, W) bool to (K, side, side) bool, or as they are where each image is scored at its own size."""
        return masks if self.side is None else _FITS[self.fit][0](masks, self.side)

    def says_none(self, prediction: Tensor) -> bool:
        """Whether (M, H, W) bool masks say that nothing answers the prompt, where no decision came with them."""
        return len(prediction) == 0 or (self.none_pixels > 0 and int(prediction.any(0).sum()) < self.none_pixels)

    def has_no_target(self, targets: Tensor) -> bool:
        """Whether (G, H, W) bool true masks mean that nothing answers the prompt."""
        return len(targets) == 0 or (self.target_by_pixels and not bool(targets.any()))

    def describe(self) -> dict[str, str]:
        """The rules in words, for reports; made from the fields, so that the words are those of what runs.

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
