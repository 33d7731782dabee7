"""Choosing a selection threshold: metrics at each threshold on validation samples, and the best threshold of them.

Pictures and clips have thresholds of their own: on a clip, one frame of many that answers wrongly is a wrong answer.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
import torch

from maskselect.backends.progress import track
from maskselect.evaluation.samples import Selector, load_group, names_of
from maskselect.evaluation.videos import VIDEO_DATASETS, VideoSelector, answers_to
from maskselect.metrics.referring import ReferringMetrics
from maskselect.metrics.video import boundary_fs, region_j
from maskselect.metrics.video_protocols import video_protocol_named
from maskselect.structures.clip import ClipMasks
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.prediction import ClipGroup, MaskGroup
from maskselect.structures.sample import Sample
from maskselect.structures.video import VideoSample, stacked

THRESHOLDS = tuple(round(0.1 + 0.01 * step, 2) for step in range(90))
"""0.1 to 0.99 in hundredths."""

CLIP_THRESHOLDS = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))
"""0.3 to 0.95; lower ones would take in nearly all masks of all frames."""


def sweep(
    model: Selector, samples: Iterable[Sample], total: int | None = None, left_out: LeftOut | None = None
) -> dict[float, dict[str, float | None]]:
    """Measure a model at each of `THRESHOLDS`, through the public predict path.

    The model runs once, at the lowest threshold. Masks come by falling score, and duplicates are removed from the best
    score down, so the group at a higher threshold is the beginning of the group at a lower one. Masks that a refiner
    adds count only up to their own score here; a model that answers at a threshold adds them whatever it is.

    Args:
        model: the model.
        samples: validation samples.
        total: number of samples, for the progress bar.
        left_out: receives the samples of images that fail; without it the first failure raises.

    Returns:
        The report of `ReferringMetrics` (percent) for each threshold.

    Raises:
        ValueError: there is no sample, or the model selects by more than a threshold.
    """
    if model.threshold is None:
        raise ValueError("this model answers at any threshold; there is none to choose")
    sums = {threshold: ReferringMetrics() for threshold in THRESHOLDS}
    for _, run in groupby(track(samples, total, "Calibrating", "samples"), key=lambda sample: sample.image_id):
        group = list(run)
        answers: list[MaskGroup] = []
        with going_on(left_out, *names_of(group)):
            answers = model.select_many(*load_group(group), threshold=THRESHOLDS[0])
        for sample, answer in zip(group, answers, strict=False):  # no answers after a failure
            _add(sums, sample, answer)
    if sums[THRESHOLDS[0]].samples == 0:
        raise ValueError("there is no sample to choose the threshold on")
    return {threshold: metrics.report() for threshold, metrics in sums.items()}


def sweep_clips(
    model: VideoSelector, samples: Sequence[VideoSample], dataset: str, left_out: LeftOut | None = None
) -> dict[float, dict[str, float | None]]:
    """Measure a model on clips at each of `CLIP_THRESHOLDS`, through the public predict path.

    The model runs once, at the lowest threshold; a higher one leaves out the masks of frames whose score is below it.
    Objects may then be linked in another way than if the model had run at that threshold, but their union is the same.

    Args:
        model: the model.
        samples: validation samples; those of one video are consecutive.
        dataset: name in `evaluation.videos.VIDEO_DATASETS`.
        left_out: receives the samples of videos that fail; without it the first failure raises.

    Returns:
        For each threshold, in percent: J&F of the prompts with targets, N-acc of the others, and "all", the mean over
        all prompts of J&F, where an answer to a prompt without target counts 100 if no pixel of any frame is in it.

    Raises:
        ValueError: there is no sample, the data set is measured by all objects of a video together, or the model
            selects by more than a threshold.
    """
    protocol = video_protocol_named(VIDEO_DATASETS[dataset].protocols[0])
    if model.clip_threshold is None:
        raise ValueError("this model answers at any threshold; there is none to choose")
    if protocol.matched:
        raise ValueError(f"{dataset} is measured by all objects of a video together; expected another data set")
    present: dict[float, list[float]] = {threshold: [] for threshold in CLIP_THRESHOLDS}
    absent: dict[float, list[float]] = {threshold: [] for threshold in CLIP_THRESHOLDS}
    shown = track(samples, len(samples), "Calibrating", "samples")
    for _, run in groupby(shown, key=lambda sample: sample.video_id):
        group = list(run)
        answers: list[ClipGroup] = []
        with going_on(left_out, *names_of(group)):
            answers = answers_to(model, group, CLIP_THRESHOLDS[0])
        for sample, answer in zip(group, answers, strict=False):  # no answers after a failure
            if sample.masks is None:
                raise ValueError(f"the masks of {sample.sample_id} are not public; expected a split with masks")
            for threshold in CLIP_THRESHOLDS:
                united = _united(answer.objects, threshold)
                if sample.kind == "none":
                    absent[threshold].append(float(not united.any()))
                else:
                    target = stacked(sample.masks).numpy()
                    score = region_j(united, target).mean() + boundary_fs(united, target).mean()
                    present[threshold].append(float(score) / 2)
    if not present[CLIP_THRESHOLDS[0]] and not absent[CLIP_THRESHOLDS[0]]:
        raise ValueError("there is no sample to choose the threshold on")
    return {
        threshold: {
            "all": _percent(present[threshold] + absent[threshold]),
            "J&F": _percent(present[threshold]),
            "N-acc": _percent(absent[threshold]),
            "samples": len(present[threshold]) + len(absent[threshold]),
        }
        for threshold in CLIP_THRESHOLDS
    }


def _united(objects: ClipMasks, threshold: float) -> np.ndarray:
    """The pixels of all masks whose score reaches a threshold, (T, H, W) bool."""
    out = np.zeros((objects.frames, *objects.shown), bool)
    for number in range(len(objects)):
        for frame in range(objects.frames):
            mask = objects.get(number, frame)
            if mask is not None and objects.score(number, frame) >= threshold:
                out[frame] |= mask
    return out


def _percent(values: list[float]) -> float | None:
    return round(100 * sum(values) / len(values), 2) if values else None


def choose(reports: dict[float, dict[str, float | None]], least_n_acc: float = 0.0, by: str = "F1") -> float:
    """The threshold of highest `by`, among those whose N-acc (percent) is at least `least_n_acc`.

    Args:
        reports: what `sweep` or `sweep_clips` returned.
        least_n_acc: minimum N-acc, percent.
        by: name of a metric of the reports.

    Raises:
        ValueError: no threshold reaches it, or there was no no-target prompt.
    """
    n_acc = {threshold: row["N-acc"] for threshold, row in reports.items()}
    allowed = [t for t, share in n_acc.items() if least_n_acc <= 0 or (share is not None and share >= least_n_acc)]
    if not allowed:
        best = max((share for share in n_acc.values() if share is not None), default=None)
        reason = "no prompt without targets was evaluated" if best is None else f"the highest N-acc is {best}"
        raise ValueError(f"no threshold reaches an N-acc of {least_n_acc}: {reason}")
    return max(allowed, key=lambda threshold: reports[threshold][by] or 0.0)


def _add(sums: dict[float, ReferringMetrics], sample: Sample, answer: MaskGroup) -> None:
    """Add an answer at every threshold. Thresholds that keep the same masks share one measurement."""
    targets = sample.gt_pool[list(sample.targets)]
    measured: dict[int, ReferringMetrics] = {}
    for threshold, metrics in sums.items():
        kept = int((answer.scores >= threshold).sum())
        if kept not in measured:
            measured[kept] = ReferringMetrics()
            measured[kept].update(torch.from_numpy(answer.masks[:kept]), targets)
        metrics.merge_state(measured[kept])
