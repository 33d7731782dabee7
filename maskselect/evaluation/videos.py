"""The evaluator of referring video segmentation: J and F of the answers of `Model.select_video_many`.

The answers can also be written in the form of a server or toolkit, see `open_submission`.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from maskselect.backends.progress import track
from maskselect.data.clips import FramesClip
from maskselect.data.video import MevisDataset, RefDavis17Dataset, RefYoutubeVosDataset, RevosDataset, VideoDataset
from maskselect.data.video_writer import AnswerWriter, IndexWriter, RleWriter, Writer, run_of
from maskselect.evaluation.leakage import find_overlaps
from maskselect.evaluation.samples import names_of, text_shares
from maskselect.metrics.davis import share_out
from maskselect.metrics.video import VideoMetrics
from maskselect.metrics.video_protocols import VideoProtocol, video_protocol_named
from maskselect.ops.atomic import write_text
from maskselect.scenes.clip_samples import PROMPTS_PER_CLIP, ask_clips
from maskselect.structures.clip import Clip
from maskselect.structures.facts import ModelFacts
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.prediction import ClipGroup
from maskselect.structures.video import VideoSample, stacked


class VideoEntry(NamedTuple):
    """A dataset of videos.

    Attributes:
        reader: its class.
        protocols: of `metrics.video_protocols`; the first is the default.
        answers: the folder of submitted PNGs in their root.
    """

    reader: type[VideoDataset]
    protocols: tuple[str, ...]
    answers: str = "Annotations"


VIDEO_DATASETS = {
    "ref-youtube-vos": VideoEntry(RefYoutubeVosDataset, ("ref-youtube-vos",)),
    "ref-davis17": VideoEntry(RefDavis17Dataset, ("davis-expression", "davis")),
    "revos": VideoEntry(RevosDataset, ("revos",)),
    "mevis": VideoEntry(MevisDataset, ("mevis",), answers=""),
    "scenes-clips": VideoEntry(RevosDataset, ("scenes-clips",)),
}

MATCHED = "davis"
"""The protocol in which the answers of one video and annotation run are made disjoint."""

CLIPS = "scenes-clips"
"""Clips that are generated, or read from files of `maskselect make_scenes --clips`."""

CLIP_PARTS = {"motion": "motion", "order": "motion", "reasoning": "reasoning"}
"""Parts of a report by the tag of a prompt; all others are in the part "one frame"."""

GROUPS = {"referring": 0, "reasoning": 1, "none": 2}
"""Group numbers of ReVOS' kinds of prompts."""


class VideoSelector(Protocol):
    """The part of `maskselect.predictor.Model` that the evaluator uses.

    Attributes:
        clip_threshold: that of its card; None for a system that uses none.
    """

    clip_threshold: float | None

    def facts(self) -> ModelFacts:
        """The name of its refiner."""
        ...

    def select_video_many(
        self,
        video: Clip,
        prompts: Sequence[str],
        references: Sequence[Sequence[np.ndarray]] | None = None,
        frames: Sequence[Sequence[int]] | None = None,
        threshold: float | None = None,
    ) -> list[ClipGroup]:
        """One group per prompt; every frame is read once. frames: that of each reference mask (H, W)."""
        ...


def open_videos(
    name: str,
    root: Path | None,
    split: str,
    limit: int | None = None,
    clips: int | None = None,
    seed: int = 0,
    without_masks: bool = False,
) -> list[VideoSample]:
    """The samples of a dataset of videos; frames and masks are read later.

    Args:
        name: in `VIDEO_DATASETS`. Generated clips are read from `root`, or generated if that is None, absent or empty.
        root: folder of the data set.
        split: of the data set.
        limit: maximum number of samples.
        clips: number of clips to generate; None for 200, or as many as `limit` needs.
        seed: of the generated clips.
        without_masks: accept a split whose masks are not public.

    Raises:
        FileNotFoundError: the dataset does not exist.
        ValueError: the dataset is damaged, has no masks or no sample, or `root` is missing.
    """
    if name == CLIPS and (root is None or not root.exists() or (root.is_dir() and not any(root.iterdir()))):
        if clips is None:
            clips = 200 if limit is None else -(-limit // PROMPTS_PER_CLIP)
        drawn = track(ask_clips(split, seed, clips), clips, f"Drawing {split}", "clips")
        return [sample for clip in drawn for sample in clip.samples()][:limit]
    if root is None:
        raise ValueError(f"dataset {name!r} needs --root: a folder with the data")
    reader: Any = VIDEO_DATASETS[name].reader
    samples = list(reader(root=root, split=split))[:limit]
    if not samples:
        raise ValueError(f"{name} in {root} has no sample of split {split!r}; expected one or more")
    if samples[0].masks is None and not without_masks:
        raise ValueError(
            f"the masks of {name} {split} are not public; expected a split such as train or valid_u, or --submission "
            "to write the answers for the server"
        )
    return samples


def protocol_of_videos(name: str, protocol: str | None, submission: Path | None) -> str:
    """The protocol of an evaluation on videos.

    Args:
        name: in `VIDEO_DATASETS`.
        protocol: the one that was chosen, or None.
        submission: see `open_submission`; PNGs of Ref-DAVIS17 are those of the protocol "davis".

    Raises:
        ValueError: the data set has no such protocol, or its answers cannot be written in this form.
    """
    known = VIDEO_DATASETS[name].protocols
    needed = None
    if submission is not None and MATCHED in known:
        needed = known[0] if submission.suffix == ".json" else MATCHED
    if protocol is None:
        return needed or known[0]
    if protocol not in known:
        raise ValueError(f"--protocol {protocol} does not fit {name}; expected {' or '.join(known)}")
    if needed not in (None, protocol):
        raise ValueError(
            f"--submission {submission} of {name} needs --protocol {needed}; PNGs hold the disjoint objects of "
            f"{MATCHED}, and a .json file one answer per expression"
        )
    return protocol


def describe_protocol(name: str) -> dict[str, str]:
    """A protocol for the report."""
    protocol = video_protocol_named(name)
    return {
        "name": protocol.name,
        "path": "public predict path: Model.select_video_many, prompts of one video together",
        "rule": (type(protocol).__doc__ or "").partition("\n")[0],
    }


def open_submission(path: Path, name: str, entries: Mapping[str, Any]) -> Writer:
    """The writer of the answers to a data set of videos.

    Args:
        path: a folder; `NAME.zip` or `NAME.json`, which is packed at the end from the folder `NAME` beside it.
        name: in `VIDEO_DATASETS`, which decides the layout of PNGs.
        entries: what identifies the answers, such as the model; `answers.json` in the folder holds them.

    Raises:
        ValueError: the folder holds other answers or other files, or is a file.
    """
    root, form = path, "PNG"
    if path.suffix in (".zip", ".json"):
        root, form = path.with_suffix(""), "RLE" if path.suffix == ".json" else "PNG"
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file; expected a folder for the answers of --submission {path}")
    note, wanted = root / "answers.json", {**entries, "form": form}
    if root.is_dir() and any(root.iterdir()):
        try:
            found = json.loads(note.read_text())
        except (OSError, ValueError):
            found = None
        if found != wanted:
            raise ValueError(
                f"{root} holds other files than the answers of this model to this data; expected a new folder, or one "
                "that an earlier run of this command began"
            )
    else:
        root.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(wanted))
    if form == "RLE":
        return RleWriter(root)
    entry = VIDEO_DATASETS[name]
    return IndexWriter(root) if MATCHED in entry.protocols else AnswerWriter(root, entry.answers)


def evaluate_videos(
    model: VideoSelector,
    samples: Sequence[VideoSample],
    *,
    dataset: str,
    split: str,
    model_name: str,
    protocol: str | None = None,
    submission: Writer | None = None,
    left_out: LeftOut | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate a model on videos. All prompts of one video share one call of the model.

    Args:
        model: the model.
        samples: samples of one video are consecutive.
        dataset: name in `VIDEO_DATASETS`.
        split: for the report.
        model_name: for the report.
        protocol: one of the data set; None for its default.
        submission: writes the answers. Those that are complete are read and not computed again.
        left_out: receives the samples of videos that fail; without it the first failure raises.
        seed: of generated clips, for `overlap`.

    Returns:
        {dataset, split, model, refiner, samples, protocol, metrics: {overall}, left_out}, metrics in percent, and
        `text_shares` of the answers that were computed. If there are no-target prompts, `no_target` has their number
        and N-acc: the share of them that no pixel of any frame answers. If the masks are not public, `overall` is empty
        and `no_metrics` says so. Of generated clips, `metrics` also has the parts "w/o mask-ref" and "w/ mask-ref",
        `by_part` the parts "one frame", "motion" and "reasoning", `by_kind` each kind of prompt, and `overlap`
        sentences about training data. No-target prompts are in none of these.

    Raises:
        ValueError: no sample could be answered.
    """
    scorer = _Scorer(dataset, video_protocol_named(protocol or VIDEO_DATASETS[dataset].protocols[0]))
    written: list[ClipGroup] = []
    shown = track(samples, len(samples), f"Evaluating {dataset} {split}", "samples")
    for _, run in groupby(shown, lambda sample: sample.video_id):
        group = list(run)
        answers: dict[str, ClipGroup] = {}
        with going_on(left_out, *names_of(group)):
            todo = [sample for sample in group if submission is None or not submission.is_done(sample)]
            if todo:
                answers = {s.sample_id: a for s, a in zip(todo, answers_to(model, todo), strict=True)}
            written += answers.values()
            for unit in scorer.units(group):
                with going_on(left_out, *names_of(unit)):
                    if submission is not None and submission.is_done(unit[0]):
                        scorer.add(unit, submission.read(unit[0]))
                        continue
                    answer = scorer.answer([answers[sample.sample_id] for sample in unit], unit)
                    if submission is not None:
                        submission.write(unit[0], answer)
                    scorer.add(unit, answer)
    if not scorer.samples:
        raise ValueError(f"none of the {len(samples)} samples of {dataset} {split} could be scored")
    report: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        "model": model_name,
        "refiner": model.facts().refiner,
        **model.facts().stated_parts,
        "samples": scorer.samples,
        "protocol": describe_protocol(scorer.protocol.name),
        "metrics": {"overall": scorer.metrics.report() if scorer.has_masks else {}},
        **(text_shares(written) if written else {}),
        "left_out": {} if left_out is None else left_out.as_json(),
    }
    if not scorer.has_masks:
        report["no_metrics"] = f"the masks of {dataset} {split} are not public; the server scores the answers"
    if absent := scorer.absent:
        report["no_target"] = {"samples": len(absent), "N-acc": round(100 * sum(absent) / len(absent), 2)}
    if dataset == CLIPS:
        report["metrics"] |= scorer.parts.reports("mask-ref")
        parts = {"by_part": scorer.parts.reports("part"), "by_kind": scorer.parts.reports("kind")}
        report |= parts | {"seed": seed, "overlap": find_overlaps(model.facts().training, dataset, split, seed)}
    return report


class _Scorer:
    """Turns the answers of a video into masks, and scores them if the masks are public.

    The answer to a unit is (T, H, W): bool of one expression, or for the protocol "davis" uint8 of all expressions of
    an annotation run: the number of the object, 0 for the background.
    """

    def __init__(self, dataset: str, protocol: VideoProtocol) -> None:
        self.dataset, self.protocol = dataset, protocol
        self.metrics, self.parts = VideoMetrics(protocol), _Parts(protocol)
        self.absent: list[bool] = []
        self.samples, self.has_masks = 0, False

    def units(self, group: list[VideoSample]) -> list[list[VideoSample]]:
        """The samples of one video, divided into those with a common answer."""
        if not self.protocol.matched:
            return [[sample] for sample in group]
        runs: dict[int, list[VideoSample]] = {}
        for sample in group:
            runs.setdefault(run_of(sample), []).append(sample)
        return list(runs.values())

    def answer(self, groups: list[ClipGroup], unit: list[VideoSample]) -> np.ndarray:
        """The answer to a unit."""
        frames = range(len(groups[0].clip))
        if not self.protocol.matched:
            return np.stack([groups[0].mask(frame) for frame in frames])
        numbers = torch.tensor([0] + [int(sample.object_ids[0]) for sample in unit], dtype=torch.uint8)
        maps = []
        for frame in frames:
            shared = share_out(torch.stack([_soft(group, frame) for group in groups]), "product")
            owner = torch.cat([~shared.any(0, keepdim=True), shared]).to(torch.uint8).argmax(0)
            maps.append(numbers[owner].numpy())
        return np.stack(maps)

    def add(self, unit: list[VideoSample], answer: np.ndarray) -> None:
        """Score the answer to a unit."""
        first = unit[0]
        if first.masks is not None:
            self.has_masks = True
            if self.protocol.matched:
                self._add_objects(unit, answer)
            else:
                _add(self.metrics, first, answer)
                if self.dataset == CLIPS and first.kind != "none":
                    self.parts.add(first, answer)
                if first.kind == "none":
                    self.absent.append(not answer.any())
        self.samples += len(unit)

    def _add_objects(self, unit: list[VideoSample], answer: np.ndarray) -> None:
        """Score all objects of one annotation run together."""
        numbers = torch.tensor([int(sample.object_ids[0]) for sample in unit], dtype=torch.uint8)
        prediction = torch.from_numpy(answer)[None] == numbers[:, None, None, None]
        target = torch.stack([stacked(sample.masks) for sample in unit if sample.masks is not None])
        void = None if unit[0].void is None else stacked(unit[0].void)
        self.metrics.update(prediction, target, group=run_of(unit[0]), void=void)


def _soft(group: ClipGroup, frame: int) -> torch.Tensor:
    """The probability of each pixel, (H, W) float32: the highest score of the objects that cover it, else 0."""
    soft = np.zeros(group.clip.size, np.float32)
    for mask, score in zip(group.frame(frame), group.scores, strict=True):
        soft[mask] = np.maximum(soft[mask], score)
    return torch.from_numpy(soft)


def answers_to(model: VideoSelector, group: list[VideoSample], threshold: float | None = None) -> list[ClipGroup]:
    """The answers to all prompts of one video; a threshold replaces that of the model."""
    clip = group[0].clip or FramesClip(group[0].frames)
    prompts = [sample.prompt for sample in group]
    if not any(sample.references for sample in group):
        return model.select_video_many(clip, prompts, threshold=threshold)
    references = [[one.masks[one.frame] for one in sample.references] for sample in group]
    frames = [[reference.frame for reference in sample.references] for sample in group]
    return model.select_video_many(clip, prompts, references, frames, threshold)


class _Parts:
    """Measures of parts of the samples, by the name of a division and of a part of it."""

    def __init__(self, protocol: VideoProtocol) -> None:
        self.protocol = protocol
        self.metrics: dict[tuple[str, str], VideoMetrics] = {}

    def add(self, sample: VideoSample, united: np.ndarray) -> None:
        """Add the answer to one prompt, (T, H, W) bool, to its part of each division."""
        names = {
            "mask-ref": "w/ mask-ref" if sample.references else "w/o mask-ref",
            "part": CLIP_PARTS.get(sample.tag, "one frame"),
            "kind": sample.tag or sample.kind,
        }
        for name in names.items():
            _add(self.metrics.setdefault(name, VideoMetrics(self.protocol)), sample, united)

    def reports(self, division: str) -> dict[str, dict[str, float | None]]:
        """The report of each part of a division, sorted by name."""
        return {part: self.metrics[of, part].report() for of, part in sorted(self.metrics) if of == division}


def _add(metrics: VideoMetrics, sample: VideoSample, united: np.ndarray) -> None:
    """Add the answer to one prompt, all frames of it: (T, H, W) bool."""
    assert sample.masks is not None
    robust = metrics.protocol.robustness
    foreground = None if sample.foreground is None or not robust else stacked(sample.foreground)
    group = GROUPS.get(sample.kind, 0)
    if len(metrics.protocol.groups) == 1 and group not in metrics.protocol.left_out:
        group = 0
    metrics.update(torch.from_numpy(united), stacked(sample.masks), group=group, foreground=foreground)
