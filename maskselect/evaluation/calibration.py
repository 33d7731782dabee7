"""Choosing a selection threshold: metrics at each threshold on validation samples, and the best threshold of them."""

from collections.abc import Iterable
from itertools import groupby

import torch

from maskselect.backends.progress import track
from maskselect.evaluation.samples import Selector, load_group, names_of
from maskselect.metrics.referring import ReferringMetrics
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import Sample

THRESHOLDS = tuple(round(0.1 + 0.01 * step, 2) for step in range(90))
"""0.1 to 0.99 in hundredths."""


def sweep(
    model: Selector, samples: Iterable[Sample], total: int | None = None, left_out: LeftOut | None = None
) -> dict[float, dict[str, float | None]]:
    """Measure a model at each of `THRESHOLDS`, through the public predict path.

    The model runs once, at the lowest threshold. Masks come by falling score, and duplicates are removed from the best
    score down, so the group at a higher threshold is the beginning of the group at a lower one.

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


def choose(reports: dict[float, dict[str, float | None]], least_n_acc: float = 0.0) -> float:
    """The threshold of highest F1, among those whose N-acc (percent) is at least `least_n_acc`.

    Args:
        reports: what `sweep` returned.
        least_n_acc: minimum N-acc, percent.

    Raises:
        ValueError: no threshold reaches it, or there was no no-target prompt.
    """
    n_acc = {threshold: row["N-acc"] for threshold, row in reports.items()}
    allowed = [t for t, share in n_acc.items() if least_n_acc <= 0 or (share is not None and share >= least_n_acc)]
    if not allowed:
        best = max((share for share in n_acc.values() if share is not None), default=None)
        reason = "no prompt without targets was evaluated" if best is None else f"the highest N-acc is {best}"
        raise ValueError(f"no threshold reaches an N-acc of {least_n_acc}: {reason}")
    return max(allowed, key=lambda threshold: reports[threshold]["F1"] or 0.0)


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
