"""The threshold of a model: what each would give on validation samples, and which to store in the checkpoint's card."""

from collections.abc import Iterable
from itertools import groupby
from typing import Protocol

import numpy as np
import torch

from maskselect.backends.progress import track
from maskselect.data.images import load_image
from maskselect.data.sizes import refuse_other_size
from maskselect.metrics.referring import ReferringMetrics
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import Sample

THRESHOLDS = tuple(round(0.1 + 0.01 * step, 2) for step in range(90))
"""0.1 to 0.99 in hundredths."""


class ThresholdSelector(Protocol):
    """The part of `maskselect.predictor.Model` that is calibrated. threshold: None where it uses none."""

    threshold: float | None

    def select_many(
        self,
        image: np.ndarray,
        prompts: list[str],
        references: list[list[np.ndarray]],
        threshold: float,
    ) -> list[MaskGroup]:
        """One answer a prompt: the masks of score at least `threshold`, by falling score."""
        ...


def sweep(
    model: ThresholdSelector, samples: Iterable[Sample], total: int | None = None, left_out: LeftOut | None = None
) -> dict[float, dict[str, float | None]]:
    """The report of `ReferringMetrics` (percent) at each of `THRESHOLDS`, through the public predict path.

    The model is asked once, at the lowest threshold: masks come by falling score and doubles are removed from the best
    score down, so the answer at a higher threshold is the beginning of the answer at a lower one.
    total: how many samples there will be, for the progress bar.
    left_out: gets the samples of images that cannot be asked; without it the first such image raises.
    Raises ValueError when there is no sample, and for a model that chooses by more than a threshold.
    """
    if model.threshold is None:
        raise ValueError("this model answers at any threshold; there is none to choose")
    sums = {threshold: ReferringMetrics() for threshold in THRESHOLDS}
    for _, run in groupby(track(samples, total, "Calibrating", "samples"), key=lambda sample: sample.image_id):
        group = list(run)
        references = [[mask.numpy() for mask in sample.prompt.references] for sample in group]
        texts = [sample.prompt.text for sample in group]
        answers: list[MaskGroup] = []
        with going_on(left_out, *(f"sample {sample.sample_id}" for sample in group)):
            image = load_image(group[0].image)
            for sample in group:
                refuse_other_size(sample, (image.shape[0], image.shape[1]))
            answers = model.select_many(image, texts, references, threshold=THRESHOLDS[0])
        if not answers:
            continue
        for sample, answer in zip(group, answers, strict=True):
            _add(sums, sample, answer)
    if sums[THRESHOLDS[0]].samples == 0:
        raise ValueError("there is no sample to choose the threshold on")
    return {threshold: metrics.report() for threshold, metrics in sums.items()}


def choose(found: dict[float, dict[str, float | None]], least_n_acc: float = 0.0) -> float:
    """The threshold of highest F1, among those whose N-acc (percent) is at least `least_n_acc`.

    found: what `sweep` gives. Raises ValueError when no threshold reaches it, or no prompt without targets was asked.
    """
    right = {threshold: row["N-acc"] for threshold, row in found.items()}
    allowed = [t for t, share in right.items() if least_n_acc <= 0 or (share is not None and share >= least_n_acc)]
    if not allowed:
        best = max((share for share in right.values() if share is not None), default=None)
        told = "no prompt without targets was asked" if best is None else f"the highest N-acc is {best}"
        raise ValueError(f"no threshold reaches an N-acc of {least_n_acc}: {told}")
    return max(allowed, key=lambda threshold: found[threshold]["F1"] or 0.0)


def _add(sums: dict[float, ReferringMetrics], sample: Sample, answer: MaskGroup) -> None:
    """Measures each length of the answer once; many thresholds share one."""
    targets = sample.gt_pool[list(sample.targets)]
    measured: dict[int, ReferringMetrics] = {}
    for threshold, metrics in sums.items():
        kept = int((answer.scores >= threshold).sum())
        if kept not in measured:
            measured[kept] = ReferringMetrics()
            measured[kept].update(torch.from_numpy(answer.masks[:kept]), targets)
        metrics.merge_state(measured[kept])
