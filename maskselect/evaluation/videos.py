"""The evaluator of referring video segmentation: J and F of the answers of `Model.select_video_many`."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from maskselect.backends.progress import track
from maskselect.data.clips import FramesClip
from maskselect.data.video import MevisDataset, RefDavis17Dataset, RefYoutubeVosDataset, RevosDataset, VideoDataset
from maskselect.evaluation.samples import names_of, text_shares
from maskselect.metrics.video import VideoMetrics
from maskselect.metrics.video_protocols import video_protocol_named
from maskselect.structures.clip import Clip
from maskselect.structures.facts import ModelFacts
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.prediction import ClipGroup
from maskselect.structures.video import VideoSample, stacked


class VideoEntry(NamedTuple):
    """A dataset of videos. protocol: of `metrics.video_protocols`."""

    reader: type[VideoDataset]
    protocol: str


VIDEO_DATASETS = {
    "ref-youtube-vos": VideoEntry(RefYoutubeVosDataset, "ref-youtube-vos"),
    "ref-davis17": VideoEntry(RefDavis17Dataset, "davis-expression"),
    "revos": VideoEntry(RevosDataset, "revos"),
    "mevis": VideoEntry(MevisDataset, "mevis"),
}

GROUPS = {"referring": 0, "reasoning": 1, "none": 2}
"""Group numbers of ReVOS' kinds of prompts."""


class VideoSelector(Protocol):
    """The part of `maskselect.predictor.Model` that the evaluator uses."""

    def facts(self) -> ModelFacts:
        """The name of its refiner."""
        ...

    def select_video_many(self, video: Clip, prompts: Sequence[str]) -> list[ClipGroup]:
        """One group per prompt; every frame is read once."""
        ...


def open_videos(name: str, root: Path | None, split: str, limit: int | None = None) -> list[VideoSample]:
    """The samples of a dataset of videos; frames and masks are read later.

    Raises:
        FileNotFoundError: the dataset does not exist.
        ValueError: the dataset is damaged, has no masks or no sample, or `root` is missing.
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
    """Evaluate a model on videos. All prompts of one video share one call of the model.

    Args:
        model: the model.
        samples: samples of one video are consecutive.
        dataset: name in `VIDEO_DATASETS`, which decides the protocol.
        split: for the report.
        model_name: for the report.
        left_out: receives the samples of videos that fail; without it the first failure raises.

    Returns:
        {dataset, split, model, refiner, samples, protocol, metrics: {overall}, left_out}, metrics in percent, and
        `text_shares`.

    Raises:
        ValueError: no sample could be scored.
    """
    protocol = video_protocol_named(VIDEO_DATASETS[dataset].protocol)
    metrics = VideoMetrics(protocol)
    scored: list[ClipGroup] = []
    shown = track(samples, len(samples), f"Evaluating {dataset} {split}", "samples")
    for _, run in groupby(shown, lambda sample: sample.video_id):
        group = list(run)
        answers: list[ClipGroup] = []
        with going_on(left_out, *names_of(group)):
            answers = model.select_video_many(FramesClip(group[0].frames), [sample.prompt for sample in group])
        for sample, answer in zip(group, answers, strict=False):
            with going_on(left_out, *names_of([sample])):
                _add(metrics, sample, answer)
                scored.append(answer)
    if not scored:
        raise ValueError(f"none of the {len(samples)} samples of {dataset} {split} could be scored")
    return {
        "dataset": dataset,
        "split": split,
        "model": model_name,
        "refiner": model.facts().refiner,
        "samples": len(scored),
        "protocol": {
            "name": protocol.name,
            "path": "public predict path: Model.select_video_many, prompts of one video together",
            "rule": (type(protocol).__doc__ or "").partition("\n")[0],
        },
        "metrics": {"overall": metrics.report()},
        **text_shares(scored),
        "left_out": {} if left_out is None else left_out.as_json(),
    }


def _add(metrics: VideoMetrics, sample: VideoSample, answer: ClipGroup) -> None:
    """Add the answer to one prompt, all frames of it."""
    assert sample.masks is not None
    united = np.stack([answer.mask(frame) for frame in range(len(answer.clip))])
    foreground = None if sample.foreground is None else stacked(sample.foreground)
    group = GROUPS.get(sample.kind, 0) if len(metrics.protocol.groups) > 1 else 0
    metrics.update(torch.from_numpy(united), stacked(sample.masks), group=group, foreground=foreground)
