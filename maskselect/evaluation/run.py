"""`evaluate`: a model on a data set, in one call."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from maskselect.data.catalog import CATALOG
from maskselect.evaluation.leakage import candidates_overlaps, find_overlaps, threshold_origin, threshold_overlaps
from maskselect.evaluation.questions import open_samples
from maskselect.evaluation.samples import Selector, build_report, score_samples
from maskselect.structures.left_out import LeftOut
from maskselect.structures.sample import Sample
from maskselect.structures.scored import Scored


def evaluate(
    model: Selector,
    dataset: str | Iterable[Sample],
    root: str | Path | None = None,
    split: str = "val",
    *,
    limit: int | None = None,
    protocol: str | None = None,
    with_gt_candidates: bool = False,
    scenes: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate a model through the predict path.

    Args:
        model: from `maskselect.load`.
        dataset: a name that `maskselect data list` shows, or samples.
        root: folder of the data set; the generated scenes need none.
        split: of the data set.
        limit: maximum number of samples.
        protocol: of `maskselect.metrics.protocols`; None for the data set's own.
        with_gt_candidates: add the ground-truth masks to the pool, which shows what selection alone can do.
        scenes: number of scenes to generate; 1000 if None.
        seed: of the generated scenes.

    Returns:
        The report that `maskselect evaluate` writes as JSON. `report["metrics"]["overall"]["gIoU"]` is in percent.
        Samples that cannot be read or scored are listed under `left_out`.

    Raises:
        FileNotFoundError: the data set does not exist.
        ValueError: the data set is damaged, or none of its samples could be scored.

    Example:
        >>> report = maskselect.evaluate(maskselect.load("ras"), "scenes", split="test", scenes=50)  # doctest: +SKIP
    """
    left_out = LeftOut()
    if isinstance(dataset, str):
        folder, name = None if root is None else Path(root), dataset
        samples, total = open_samples(name, folder, split, limit=limit, scenes=scenes, seed=seed, left_out=left_out)
    else:
        chosen, name = list(dataset)[:limit], "samples"
        samples, total = iter(chosen), len(chosen)
    rule = protocol or protocol_of(name)
    scored = score_samples(
        model,
        samples,
        total=total,
        what=f"{name} {split}",
        with_gt=with_gt_candidates,
        protocol=rule,
        left_out=left_out,
    )
    return full_report(model, list(scored), name, split, model.facts().name, with_gt_candidates, rule, seed, left_out)


def protocol_of(dataset: str) -> str:
    """The protocol of a data set's own evaluator."""
    return CATALOG[dataset].protocol if dataset in CATALOG else "maskselect"


def full_report(
    model: Selector,
    rows: Sequence[Scored],
    dataset: str,
    split: str,
    model_name: str,
    with_gt: bool,
    protocol: str,
    seed: int,
    left_out: LeftOut,
) -> dict[str, Any]:
    """The report of `build_report`, with the overlap of training and evaluation data and the samples left out.

    The entry `threshold` says where the threshold comes from; null for a model without.

    Raises:
        ValueError: there is no sample; the message has the first reason if all were left out.
    """
    if not rows and left_out:
        reason = next(iter(left_out.reasons.values()))
        raise ValueError(f"none of the {len(left_out)} samples could be scored: {reason}")
    evaluated = dataset, split, seed, [row.image_id for row in rows]
    facts = model.facts()
    overlap = [*find_overlaps(facts.training, *evaluated), *candidates_overlaps(facts.proposers, *evaluated)]
    overlap += threshold_overlaps(facts.threshold_data, *evaluated)
    origin = threshold_origin(facts.threshold, facts.threshold_data)
    report = build_report(rows, dataset, split, model_name, with_gt, protocol, overlap)
    stated = {"refiner": facts.refiner, "threshold": origin, **facts.stated_parts}
    return report | stated | {"left_out": left_out.as_json()}
