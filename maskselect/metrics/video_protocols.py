"""The published protocols of referring video segmentation, as data. J and F of a frame are the same in all of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoProtocol:
    """The rules of an evaluator. The defaults: each expression against its own mask, mean over expressions.

    Attributes:
        groups: names of the parts over which means are taken. With more than one, the overall number is the mean of
            the groups that hold any expression.
        left_out: numbers of groups that are not counted.
        matched: a sample is a video with all its objects; answers are assigned to objects (`davis.match`).
        rounded: measures of an expression are rounded to two decimals in percent before the mean.
        robustness: A (accuracy) and R (robustness) are also measured.
    """

    name: str = "expression"
    groups: tuple[str, ...] = ("all",)
    left_out: frozenset[int] = frozenset()
    matched: bool = False
    rounded: bool = False
    robustness: bool = False


VIDEO_PROTOCOLS: dict[str, VideoProtocol] = {
    protocol.name: protocol
    for protocol in (
        # Ref-DAVIS17, classic (ReferFormer, InstructSeg): the unsupervised task of DAVIS 2017, once for each of four
        # annotations. Void pixels (255) are left out, all frames count; the mean is over objects, then over the runs.
        VideoProtocol("davis", ("run 1", "run 2", "run 3", "run 4"), matched=True),
        # Ref-DAVIS17 as VISA and Sa2VA score it: an answer counts only for its own object; no merging or void pixels.
        VideoProtocol("davis-expression"),
        # MeViS, split valid_u (arXiv 2308.08544): the truth may be several objects, united.
        VideoProtocol("mevis"),
        # Ref-YouTube-VOS, on the annotated frames. Its server holds the truth of valid.
        VideoProtocol("ref-youtube-vos"),
        # ReVOS (VISA, arXiv 2407.11325): types 0 and 1 have the same weight, type 2 is left out.
        VideoProtocol("revos", ("referring", "reasoning"), frozenset({2}), rounded=True, robustness=True),
        # Generated clips: the mean over all prompts with a target; the report has N-acc of the others.
        VideoProtocol("scenes-clips", ("referring and reasoning",), frozenset({2})),
    )
}


def video_protocol_named(name: str) -> VideoProtocol:
    """Look up a protocol.

    Raises:
        ValueError: no protocol has this name; the message lists the names.
    """
    if name not in VIDEO_PROTOCOLS:
        known = ", ".join(VIDEO_PROTOCOLS)
        raise ValueError(f"no protocol of referring video segmentation is called {name!r}; there are {known}")
    return VIDEO_PROTOCOLS[name]
