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

from maskselect.metrics.functional import CANVAS, EmptyRule
from maskselect.metrics.rules import ALL, CORE, MATCHED_RECALL, RECALL, RECALL_AT, Fit, Protocol, Share

__all__ = ["ALL", "CORE", "MATCHED_RECALL", "PROTOCOLS", "RECALL", "RECALL_AT", "Protocol", "protocol_named"]


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
    source: str = "ReLA's evaluator of gRefCOCO, github.com/henghuiding/ReLA"
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
    source: str = "GSVA's eval_gres, github.com/LeapLabTHU/GSVA"
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
    source: str = "GSVA's eval_gres on Ref-ZOM, github.com/LeapLabTHU/GSVA"
    empty_rule: EmptyRule = "refzom"


@dataclass(frozen=True)
class Lisa(Protocol):
    """LISA's `validate` (arXiv 2308.00692), as GSVA and InstructSeg have it too: pixels alone, at the image's size.

    An empty union is IoU 1, so a model that never abstains is not asked to; the evaluator knows no decision, and N-acc
    and T-acc are our own addition. Epsilons of 1e-5 (IoU), 1e-10 (sums) and 1e-5 (count).

    >>> speck = torch.eye(10, dtype=torch.bool)[None]
    >>> empty = torch.zeros_like(square)  # an answer without a pixel, and true masks without one
    >>> [scored(name, (square, square), (empty, empty))["gIoU"] for name in ("lisa", "maskselect", "rmsin")]
    [100.0, 50.0, 50.0]
    >>> metrics = ReferringMetrics(protocol="lisa")
    >>> metrics.update(empty, empty)
    >>> float(metrics.compute()["cIoU"]), metrics.report()["cIoU"]  # 0 / 1e-10, which a report leaves out
    (0.0, None)
    """

    name: str = "lisa"
    source: str = "LISA's validate, github.com/dvlab-research/LISA"
    empty_rule: EmptyRule = "lisa"
    none_pixels: int = 1
    target_by_pixels: bool = True
    iou_epsilon: float = 1e-5
    sum_epsilon: float = 1e-10
    count_epsilon: float = 1e-5
    measures: tuple[str, ...] = ALL


@dataclass(frozen=True)
class Sa2Va(Lisa):
    """Sa2VA's `RESDataset.evaluate` (arXiv 2501.04001), and what Text4Seg and PSALM run: `Lisa` with an exact mean.

    LISA's epsilon in the count comes from adding up processes, which these scripts do not do.

    >>> for name in ("sa2va", "lisa"):
    ...     metrics = ReferringMetrics(protocol=name)
    ...     metrics.update(square, square)
    ...     print(f"{float(metrics.compute()['gIoU']):.6f}")
    1.000000
    0.999990
    """

    name: str = "sa2va"
    source: str = "Sa2VA's RESDataset.evaluate, github.com/bytedance/Sa2VA; Text4Seg's and PSALM's scripts"
    count_epsilon: float = 0.0


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
    source: str = "LISA's validate on ReasonSeg, github.com/dvlab-research/LISA"


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
    source: str = "LLM-Seg's validate_llmseg.py, github.com/wangjunchi/LLMSeg"
    iou_epsilon: float = 1e-8


@dataclass(frozen=True)
class LlmSegCanvas(LlmSeg):
    """LLM-Seg as its `training.py` validates: both masks are brought to 1024 x 1024 first, so its cIoU is ncIoU.

    Place i of the canvas takes source index floor(i * size / 1024), as `interpolate(mode="nearest")` of torch does.

    >>> small, large = torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(1, 32, 32, dtype=torch.bool)
    >>> half = large.clone()
    >>> half[:, 16:] = False
    >>> [scored(name, (small, small), (half, large))["cIoU"] for name in ("llmseg-1024", "llmseg")]
    [75.0, 52.94]
    """

    name: str = "llmseg-1024"
    source: str = "LLM-Seg's training.py, github.com/wangjunchi/LLMSeg"
    side: int | None = CANVAS
    fit: Fit = "stretch-floor"


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
    source: str = "RMSIN's test.py, github.com/Lsan2401/RMSIN; LAVT's"
    empty_rule: EmptyRule = "zero"
    none_pixels: int = 1
    target_by_pixels: bool = True
    side: int | None = 480
    ignores: bool = False
    share: Share = "all"
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
    source: str = "SegEarth-R1's eval.py, github.com/earth-insights/SegEarth-R1"
    count_epsilon: float = 0.0
    side: int | None = 1024
    fit: Fit = "letterbox"
    strict: bool = True
    share: Share = "all"


@dataclass(frozen=True)
class Muse(Lisa):
    """MUSE as PixelLM (arXiv 2312.02228) scores it: mask against mask, one to one, with the rest against nothing.

    gIoU is the sum of all pairs' IoUs over the sum, over images, of max(masks given, masks true): an image with many
    masks weighs more. An update is an image with one question; where an image has several, its masks are counted
    together before the larger number is taken, which `summary.add_up` does for scored samples. PixelLM matches by BCE
    and dice of logits at random points; masks have no logits, so the matching here is the one of greatest summed IoU.

    >>> left, right = square.clone(), square.clone()
    >>> left[..., 5:], right[..., :5] = False, False
    >>> both = torch.cat([left, right])
    >>> [scored(name, (square, both))["gIoU"] for name in ("muse", "lisa")]  # one mask for two things
    [25.0, 100.0]
    >>> scored("muse", (square, both), (square, square))["gIoU"]  # (0.5 + 0 + 1) of 2 + 1 masks
    50.0
    """

    name: str = "muse"
    source: str = "PixelLM's ar_validate, github.com/MaverickRen/PixelLM"
    paired: bool = True


PROTOCOLS: dict[str, Protocol] = {
    each.name: each
    for each in (
        Protocol(), GRefCoco(), Gsva(), GsvaRefZom(), Lisa(), Sa2Va(), ReasonSeg(), LlmSeg(), LlmSegCanvas(), Rmsin(),
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
