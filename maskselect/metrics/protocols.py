"""Published protocols of referring segmentation: where the evaluators of others differ, as data.

Every evaluator counts intersection and union; they part where a mask is empty, where an epsilon joins a denominator,
at which size masks are compared, and over what a share is taken. `ReferringMetrics(protocol=NAME)` follows one of them.
The examples go on from this one and share its three samples: a perfect answer, a rejection that is right and a false
alarm of 100 pixels. A protocol of your own is `dataclasses.replace(protocol_named("lisa"), strict=True)`.

>>> import torch
>>> from maskselect.metrics.referring import ReferringMetrics
>>> square = torch.ones(1, 10, 10, dtype=torch.bool)
>>> def scored(protocol, *pairs):
...     metrics = ReferringMetrics(protocol=protocol)
...     for prediction, target in pairs or ((square, square), (square[:0], square[:0]), (square, square[:0])):
...         metrics.update(prediction, target)
...     return metrics.report()
>>> [scored("maskselect")[name] for name in ("gIoU", "cIoU", "N-acc")]
[66.67, 50.0, 50.0]
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from maskselect.metrics.canvas import letterbox, stretch
from maskselect.metrics.functional import CANVAS, EmptyRule

CORE = (
    "gIoU", "cIoU", "ncIoU", "N-acc", "T-acc", "F1", "F1@.5:.95", "F1 micro",
    "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9", "oracle_gIoU", "oracle_cIoU",
)  # fmt: skip
RECALL_AT = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALL = (*(f"recall@{limit}" for limit in RECALL_AT), "recall@.5:.95")
ALL = (*CORE, "mIoU", "Acc@0.5", *RECALL)


@dataclass(frozen=True)
class Protocol:
    """Our own: the decisions of gRefCOCO's evaluator, at each image's own size, where an empty group says "nothing".

    What a field may say, and here says:

    empty_rule: what empty masks count for, see `functional.overlap`.
    none_pixels: an answer with fewer pixels says "nothing" where the model gives no decision of its own; with 0 only
        an answer of no mask does.
    target_by_pixels: a sample has no target when its true masks are empty, not when there is no true mask.
    iou_epsilon, sum_epsilon, count_epsilon: joins the union of a sample, the summed union, the number of samples.
    side: masks are compared on a square canvas of so many pixels a side, or at their own size (None).
    fit: how they come there, nearest neighbour: "stretch" to the canvas, or "letterbox", centred with its aspect kept.
    ignores: pixels given as `ignore` leave prediction and truth; otherwise they are background.
    strict: Pr@X asks for IoU > X, not IoU >= X.
    share: Pr@X is the share of "targets", the samples that have one, or of "all".
    paired: one true mask against one answered mask, matched one to one, instead of union against union.
    measures: the names that are reported.
    """

    name: str = "maskselect"
    empty_rule: EmptyRule = "gres"
    none_pixels: int = 0
    target_by_pixels: bool = False
    iou_epsilon: float = 0.0
    sum_epsilon: float = 0.0
    count_epsilon: float = 0.0
    side: int | None = None
    fit: Literal["stretch", "letterbox"] = "stretch"
    ignores: bool = True
    strict: bool = False
    share: Literal["targets", "all"] = "targets"
    paired: bool = False
    measures: tuple[str, ...] = CORE

    def to_canvas(self, masks: Tensor) -> Tensor:
        """(K, H, W) bool to (K, side, side) bool, or as they are where each image is scored at its own size."""
        if self.side is None:
            return masks
        return letterbox(masks, self.side) if self.fit == "letterbox" else stretch(masks, self.side)

    def says_none(self, prediction: Tensor) -> bool:
        """Whether (M, H, W) bool masks say that nothing answers the prompt, where no decision came with them."""
        return len(prediction) == 0 or (self.none_pixels > 0 and int(prediction.any(0).sum()) < self.none_pixels)

    def has_no_target(self, targets: Tensor) -> bool:
        """Whether (G, H, W) bool true masks mean that nothing answers the prompt."""
        return len(targets) == 0 or (self.target_by_pixels and not bool(targets.any()))


@dataclass(frozen=True)
class GRefCoco(Protocol):
    """gRefCOCO's evaluator (ReLA, arXiv 2306.00968): 480 x 480, and the decision counts, whatever the pixels.

    A right "nothing" is IoU 1; a false alarm is IoU 0 and its pixels join the summed union; a wrong "nothing" is IoU 0
    with no intersection. Models without a decision say "nothing" with fewer than 50 pixels on the canvas. ReLA scales
    polygons before it draws them; here drawn masks are scaled, which moves outlines by up to one pixel. Where no sample
    lacks a target ReLA writes N-acc and T-acc as 0; here N-acc is then undefined.

    >>> speck = torch.zeros(1, 480, 480, dtype=torch.bool)
    >>> speck[0, :7, :7] = True  # 49 pixels: no answer
    >>> [scored(name, (speck, speck[:0]))["N-acc"] for name in ("grefcoco", "maskselect")]
    [100.0, 0.0]
    """

    name: str = "grefcoco"
    none_pixels: int = 50
    side: int | None = 480
    ignores: bool = False
    measures: tuple[str, ...] = ALL


@dataclass(frozen=True)
class Gsva(Protocol):
    """GSVA's `eval_gres` (arXiv 2312.10103) on gRefCOCO: at the image's size, decisions by `[REJ]`, truth by pixels.

    Differs from ReLA for a target that was wrongly rejected: its mask still counts, for gIoU and for cIoU.

    >>> metrics = {name: ReferringMetrics(protocol=name) for name in ("gsva", "maskselect")}
    >>> for each in metrics.values():
    ...     each.update(square, square, predicted_none=True)
    >>> [(each.report()["gIoU"], each.report()["T-acc"]) for each in metrics.values()]
    [(100.0, 0.0), (0.0, 0.0)]
    """

    name: str = "gsva"
    empty_rule: EmptyRule = "gsva"
    none_pixels: int = 1
    target_by_pixels: bool = True
    iou_epsilon: float = 1e-8
    sum_epsilon: float = 1e-10
    count_epsilon: float = 1e-5
    measures: tuple[str, ...] = ALL


@dataclass(frozen=True)
class GsvaRefZom(Gsva):
    """GSVA's `eval_gres` on Ref-ZOM: as `Gsva`, but a false alarm leaves the summed union alone.

    >>> [scored(name)["cIoU"] for name in ("gsva-refzom", "gsva")]
    [100.0, 50.0]
    """

    name: str = "gsva-refzom"
    empty_rule: EmptyRule = "refzom"


@dataclass(frozen=True)
class Lisa(Protocol):
    """LISA's `validate` (arXiv 2308.00692), as Text4Seg, Sa2VA and PSALM have it: pixels alone, at the image's size.

    An empty union is IoU 1, so a model that never abstains is not asked to; there is no decision, and N-acc and T-acc
    are our own reading (no pixel = "nothing"). Epsilons of 1e-5 (IoU), 1e-10 (sums) and 1e-5 (count).

    >>> speck = torch.eye(10, dtype=torch.bool)[None]
    >>> empty = torch.zeros_like(square)  # an answer without a pixel, and true masks without one
    >>> [scored(name, (square, square), (empty, empty))["gIoU"] for name in ("lisa", "maskselect", "rmsin")]
    [100.0, 50.0, 50.0]
    >>> scored("lisa", (empty, empty))["cIoU"]  # 0 / 1e-10
    0.0
    """

    name: str = "lisa"
    empty_rule: EmptyRule = "lisa"
    none_pixels: int = 1
    target_by_pixels: bool = True
    iou_epsilon: float = 1e-5
    sum_epsilon: float = 1e-10
    count_epsilon: float = 1e-5
    measures: tuple[str, ...] = ALL


@dataclass(frozen=True)
class ReasonSeg(Lisa):
    """ReasonSeg as LISA scores it: `Lisa`, with the pixels labelled 255 given as `ignore`, out of both masks.

    InstructSeg takes them for background: with `ignore=None` this is its rule.

    >>> half = square.clone()
    >>> half[:, 5:] = False
    >>> for ignore in (~half[0], None):  # the answer covers the half that is not judged, too
    ...     metrics = ReferringMetrics(protocol="reasonseg")
    ...     metrics.update(square, half, ignore=ignore)
    ...     print(metrics.report()["gIoU"])
    100.0
    50.0
    """

    name: str = "reasonseg"


@dataclass(frozen=True)
class LlmSeg(Lisa):
    """LLM-Seg (arXiv 2404.08767), as its `validate_llmseg.py` has it: `Lisa` with an epsilon of 1e-8 in the IoU.

    What the paper calls ncIoU, the same sums on 1024 x 1024, is reported as ncIoU by every protocol.

    >>> dot = torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> dot[0, 0, 0] = True
    >>> for name in ("llmseg", "lisa"):  # of one pixel, so that the epsilon weighs
    ...     metrics = ReferringMetrics(protocol=name)
    ...     metrics.update(dot, dot)
    ...     print(f"{float(metrics.iou):.6f}")
    1.000000
    0.999990
    """

    name: str = "llmseg"
    iou_epsilon: float = 1e-8


@dataclass(frozen=True)
class LlmSegCanvas(LlmSeg):
    """LLM-Seg as its `training.py` validates: both masks are brought to 1024 x 1024 first, so its cIoU is ncIoU.

    >>> small, large = torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(1, 32, 32, dtype=torch.bool)
    >>> half = large.clone()
    >>> half[:, 16:] = False
    >>> [scored(name, (small, small), (half, large))["cIoU"] for name in ("llmseg-1024", "llmseg")]
    [75.0, 52.94]
    """

    name: str = "llmseg-1024"
    side: int | None = CANVAS


@dataclass(frozen=True)
class Rmsin(Protocol):
    """RMSIN's test (arXiv 2312.12470) for RRSIS-D, and LAVT's: 480 x 480, no epsilon, an empty union is IoU 0.

    mIoU is its name for gIoU. Pr@X takes IoU >= X over all samples.

    >>> [scored(name, (square[:0], square[:0]), (square, square))["mIoU"] for name in ("rmsin", "lisa")]
    [50.0, 50.0]
    >>> [scored(name, (square[:0], square[:0]), (square, square))["gIoU"] for name in ("rmsin", "lisa")]
    [50.0, 100.0]
    >>> [scored(name)["Pr@0.5"] for name in ("rmsin", "grefcoco")]  # one of three samples; of the one with a target
    [33.33, 100.0]
    """

    name: str = "rmsin"
    empty_rule: EmptyRule = "zero"
    none_pixels: int = 1
    target_by_pixels: bool = True
    side: int | None = 480
    ignores: bool = False
    share: Literal["targets", "all"] = "all"
    measures: tuple[str, ...] = ALL


@dataclass(frozen=True)
class SegEarth(Lisa):
    """SegEarth-R1's `eval.py` (arXiv 2504.09644) for EarthReason: letterboxed to 1024 x 1024, Pr@X asks for IoU > X.

    Otherwise as `Lisa`, except that Pr@X is the share of all samples and the count has no epsilon.

    >>> half = square.clone()
    >>> half[:, 5:] = False
    >>> [scored(name, (half, square))["Pr@0.5"] for name in ("segearth", "rmsin")]  # an IoU of 0.5
    [0.0, 100.0]
    """

    name: str = "segearth"
    count_epsilon: float = 0.0
    side: int | None = 1024
    fit: Literal["stretch", "letterbox"] = "letterbox"
    strict: bool = True
    share: Literal["targets", "all"] = "all"


@dataclass(frozen=True)
class Muse(Lisa):
    """MUSE as PixelLM (arXiv 2312.02228) scores it: mask against mask, one to one, with the rest against nothing.

    A sample's IoU is the mean over max(M, G) pairs, its sums are those of all pairs. PixelLM matches by BCE and dice of
    logits at random points; masks have no logits, so the matching here is the one of greatest summed IoU.

    >>> left, right = square.clone(), square.clone()
    >>> left[..., 5:], right[..., :5] = False, False
    >>> both = torch.cat([left, right])
    >>> [scored(name, (square, both))["gIoU"] for name in ("muse", "lisa")]  # one mask for two things
    [25.0, 100.0]
    """

    name: str = "muse"
    paired: bool = True


PROTOCOLS: dict[str, Protocol] = {
    each.name: each
    for each in (
        Protocol(), GRefCoco(), Gsva(), GsvaRefZom(), Lisa(), ReasonSeg(), LlmSeg(), LlmSegCanvas(), Rmsin(),
        SegEarth(), Muse(),
    )
}  # fmt: skip


def protocol_named(name: str) -> Protocol:
    """The protocol of that name. Raises ValueError that lists the names there are.

    >>> protocol_named("lisa").iou_epsilon
    1e-05
    """
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol of referring segmentation is called {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
