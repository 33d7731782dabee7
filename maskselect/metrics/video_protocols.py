"""Published protocols of referring video segmentation, as data. J and F of a frame are the same in all of them.

The examples go on from this one.

>>> import torch
>>> from maskselect.metrics.video import VideoMetrics
>>> here = torch.zeros(2, 8, 8, dtype=torch.bool)  # two frames
>>> here[:, :4] = True
>>> nowhere = torch.zeros_like(here)
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoProtocol:
    """Each expression of a video against its own mask, on all frames; then the mean over expressions.

    groups: names of the parts that means are taken over. With more than one, the overall number is the plain mean of
        those that hold any, however many expressions each holds.
    left_out: group numbers that count nowhere.
    matched: a sample is a video with all its objects, and answers are assigned to objects (`davis.match`).
    rounded: each expression's measures are rounded to two decimals in percent before the mean; only ReVOS does that.
    robustness: A (accuracy) and R (robustness) are measured, too.
    """

    name: str = "expression"
    groups: tuple[str, ...] = ("all",)
    left_out: frozenset[int] = frozenset()
    matched: bool = False
    rounded: bool = False
    robustness: bool = False


@dataclass(frozen=True)
class Davis(VideoProtocol):
    """Ref-DAVIS17, classic (ReferFormer, InstructSeg): DAVIS 2017 unsupervised, once for each of four annotations.

    Objects are disjoint in a frame, answers are assigned to them by Hungarian matching, void pixels (255) are left out,
    and all frames count. The mean is over objects, and then over the four runs.

    >>> metrics = VideoMetrics(protocol="davis")
    >>> metrics.update(torch.stack([nowhere, here]), torch.stack([here, ~here]), group=0)  # in the other order
    >>> metrics.report()["J"]  # one object found, one not
    50.0
    """

    name: str = "davis"
    groups: tuple[str, ...] = ("run 1", "run 2", "run 3", "run 4")
    matched: bool = True


@dataclass(frozen=True)
class DavisExpression(VideoProtocol):
    """Ref-DAVIS17 as VISA and Sa2VA score it: expression by expression, without merging, matching or void pixels.

    Not the same number as `Davis`: an answer counts only for the object it was asked for.

    >>> metrics = VideoMetrics(protocol="davis-expression")
    >>> for answer, truth in zip((nowhere, here), (here, ~here)):
    ...     metrics.update(answer, truth)
    >>> metrics.report()["J"]
    0.0
    """

    name: str = "davis-expression"


@dataclass(frozen=True)
class MeVis(VideoProtocol):
    """MeViS, split valid_u (arXiv 2308.08544): expression by expression; the truth may be several objects, united.

    >>> metrics = VideoMetrics(protocol="mevis")
    >>> metrics.update(here, here | here.roll(4, 1))
    >>> metrics.report()["J"]
    50.0
    """

    name: str = "mevis"


@dataclass(frozen=True)
class RefYoutubeVos(VideoProtocol):
    """Ref-YouTube-VOS: expression by expression, on the frames that are annotated. Its server holds the truth of valid.

    >>> metrics = VideoMetrics(protocol="ref-youtube-vos")
    >>> metrics.update(here, here)
    >>> metrics.report()["J&F"]
    100.0
    """

    name: str = "ref-youtube-vos"


@dataclass(frozen=True)
class ReVos(VideoProtocol):
    """ReVOS (VISA, arXiv 2407.11325): referring (type 0) and reasoning (type 1) weigh the same; type 2 is left out.

    R is 1 minus the wrong pixels over all annotated foreground of the frame, A the share of pixels that are right.

    >>> metrics = VideoMetrics(protocol="revos")
    >>> for answer, truth, kind in ((here, here, 0), (here, ~here, 1), (nowhere, here, 1), (here, here, 2)):
    ...     metrics.update(answer, truth, foreground=here | truth, group=kind)
    >>> report = metrics.report()
    >>> report["J"], report["J referring"], report["J reasoning"]
    (50.0, 100.0, 0.0)
    """

    name: str = "revos"
    groups: tuple[str, ...] = ("referring", "reasoning")
    left_out: frozenset[int] = frozenset({2})
    rounded: bool = True
    robustness: bool = True


VIDEO_PROTOCOLS: dict[str, VideoProtocol] = {
    each.name: each for each in (Davis(), DavisExpression(), MeVis(), RefYoutubeVos(), ReVos())
}


def video_protocol_named(name: str) -> VideoProtocol:
    """The protocol of that name. Raises ValueError that lists the names there are."""
    if name not in VIDEO_PROTOCOLS:
        known = ", ".join(VIDEO_PROTOCOLS)
        raise ValueError(f"no protocol of referring video segmentation is called {name!r}; there are {known}")
    return VIDEO_PROTOCOLS[name]
