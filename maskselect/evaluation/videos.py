"""The evaluator of referring video segmentation: asks a model through `select_video_many` and measures J and F."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from maskselect.backends.progress import track
from maskselect.data.clips import FramesClip
from maskselect.data.video import MevisDataset, RefDavis17Dataset, RefYoutubeVosDataset, RevosDataset, VideoDataset
from maskselect.metrics.video import VideoMetrics
from maskselect.metrics.video_protocols import video_protocol_named
from maskselect.structures.clip import Clip
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.prediction import ClipGroup
from maskselect.structures.video import VideoSample, stacked


class VideoEntry(NamedTuple):
    """A dataset of videos. protocol: of `metrics.video_protocols`, expression by expression."""

    reader: type[VideoDataset]
    protocol: str


VIDEO_DATASETS = {
    "ref-youtube-vos": VideoEntry(RefYoutubeVosDataset, "ref-youtube-vos"),
    "ref-davis17": VideoEntry(RefDavis17Dataset, "davis-expression"),
    "revos": VideoEntry(RevosDataset, "revos"),
    "mevis": VideoEntry(MevisDataset, "mevis"),
}

GROUPS = {"referring": 0, "reasoning": 1, "none": 2}
"""Numbers of ReVOS' kinds."""


class VideoSelector(Protocol):
    """The part of `maskselect.predictor.Model` that is evaluated."""

    def select_video_many(self, video: Clip, prompts: Sequence[str]) -> list[ClipGroup]:
        """One answer a prompt; every frame is read once."""
        ...


def open_videos(name: str, root: Path | None, split: str, limit: int | None = None) -> list[VideoSample]:
    """Samples of a dataset of videos, without their frames and masks.

    Raises:
        FileNotFoundError, ValueError: when the dataset is not there, has no masks, or is not as it should be.
    """
    if root is None:
        raise ValueError(f"dataset {name!r} needs --root: a folder with the data")
    reader: Any = VIDEO_DATASETS[name].reader
    samples = list(reader(root=root, split=split))[:limit]
    if not samples:
        raise ValueError(f"{name} in {root} has no sample of split {split!r}; expected one or more")
    if samples[0].masks is None:
        raise ValueError(f"the masks of {name} {split} are not public; expected a split such as train or valid_u")
    return samples


def evaluate_videos(
    model: VideoSelector,
    samples: Sequence[VideoSample],
    *,
    dataset: str,
    split: str,
    model_name: str,
    left_out: LeftOut | None = None,
) -> dict[str, Any]:
    """Ask all expressions, those of one video together, and return the report.

    Args:
        model: what is evaluated.
        samples: those of one video behind each other.
        dataset: name in `VIDEO_DATASETS`, which decides the protocol.
        split: for the report.
        model_name: for the report.
        left_out: gets the samples of videos that cannot be asked; without it the first such video raises.

    Returns:
        {dataset, split, model, samples, protocol, metrics: {overall}}, metrics in percent.

    Raises:
        ValueError: when no sample could be scored.
    """
    protocol = video_protocol_named(VIDEO_DATASETS[dataset].protocol)
    metrics = VideoMetrics(protocol)
    undecoded = scored = 0
    shown = track(samples, len(samples), f"Evaluating {dataset} {split}", "samples")
    for _, run in groupby(shown, lambda sample: sample.video_id):
        group = list(run)
        answers: list[ClipGroup] = []
        with going_on(left_out, *(f"sample {sample.sample_id}" for sample in group)):
            answers = model.select_video_many(FramesClip(group[0].frames), [sample.prompt for sample in group])
        for sample, answer in zip(group, answers, strict=False):
            with going_on(left_out, f"sample {sample.sample_id}"):
                _add(metrics, sample, answer)
                scored, undecoded = scored + 1, undecoded + (answer.failure is not None)
    if not scored:
        raise ValueError(f"none of the {len(samples)} samples of {dataset} {split} could be scored")
    return {
        "dataset": dataset,
        "split": split,
        "model": model_name,
        "samples": scored,
        "protocol": {
            "name": protocol.name,
            "path": "public predict path: Model.select_video_many, prompts of one video together",
            "rule": (type(protocol).__doc__ or "").partition("\n")[0],
        },
        "metrics": {"overall": metrics.report()},
        "undecoded": round(100 * undecoded / scored, 2),
        "left_out": {} if left_out is None else left_out.as_json(),
    }


def _add(metrics: VideoMetrics, sample: VideoSample, answer: ClipGroup) -> None:
    """One expression, all frames of it."""
    assert sample.masks is not None
    united = np.stack([answer.mask(frame) for frame in range(len(answer.clip))])
    foreground = None if sample.foreground is None else stacked(sample.foreground)
    group = GROUPS.get(sample.kind, 0) if len(metrics.protocol.groups) > 1 else 0
    metrics.update(torch.from_numpy(united), stacked(sample.masks), group=group, foreground=foreground)
