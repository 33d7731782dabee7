"""The evaluator of open-vocabulary semantic segmentation: one prompt per image lists all classes.

Shape letters: H W pixels.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.backends.progress import track
from maskselect.data.catalog import OTHERS
from maskselect.data.images import load_image
from maskselect.data.label_maps import LabelMapDataset
from maskselect.evaluation.leakage import find_overlaps
from maskselect.evaluation.samples import Selector, text_shares
from maskselect.metrics.semantic import SemanticMetrics
from maskselect.scenes.classes import SCENE_CLASSES, label_scenes
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.semantic import LabelledImage

GENERATED_CLASSES = "scenes-classes"
"""The generated scenes with their categories as classes."""
SEMANTIC_DATASETS = (GENERATED_CLASSES, *(name for name, entry in OTHERS.items() if entry.protocol == "semantic"))


def open_label_maps(
    name: str,
    root: Path | None,
    split: str,
    *,
    limit: int | None = None,
    scenes: int | None = None,
    seed: int = 0,
    left_out: LeftOut | None = None,
) -> tuple[tuple[str, ...], Iterator[LabelledImage], int]:
    """Open a data set of `SEMANTIC_DATASETS`.

    Args:
        name: of the data set.
        root: folder of the data set; the generated scenes need none.
        split: of the data set.
        limit: maximum number of images.
        scenes: number of scenes to generate; 1000 if None.
        seed: of the generated scenes.
        left_out: receives the images that cannot be read; without it the first failure raises.

    Returns:
        The names of the classes, the images, and their maximum number.

    Raises:
        FileNotFoundError: the data set does not exist.
        ValueError: `root` is missing, or the data set is damaged.
    """
    if name == GENERATED_CLASSES:
        if root is not None:
            raise ValueError(f"dataset {name!r} is generated; expected no --root, got {root}")
        count = min(limit or scenes or 1000, scenes or 1000)
        return SCENE_CLASSES, label_scenes(split, seed, count), count
    if root is None:
        raise ValueError(f"dataset {name!r} needs --root: a folder with the data; get it from {OTHERS[name].page}")
    stored: Any = OTHERS[name].open(root, split)
    assert isinstance(stored, LabelMapDataset)
    total = len(stored) if limit is None else min(limit, len(stored))
    return stored.classes, _readable(stored, total, left_out), total


def _readable(stored: LabelMapDataset, total: int, left_out: LeftOut | None) -> Iterator[LabelledImage]:
    """The first `total` images, without those that `left_out` receives."""
    for number, image_id in enumerate(stored.image_ids()[:total]):
        image = None
        with going_on(left_out, f"image {image_id}"):
            image = stored[number]
        if image is not None:
            yield image


def evaluate_classes(
    model: Selector,
    images: Iterable[LabelledImage],
    classes: Sequence[str],
    *,
    dataset: str,
    split: str,
    model_name: str,
    total: int | None = None,
    seed: int = 0,
    left_out: LeftOut | None = None,
) -> dict[str, Any]:
    """Evaluate a model whose masks have classes, through the public predict path.

    The prompt is the names of all classes joined by "|", and no mask is left out for its score. Masks are painted by
    rising number of their class.

    Args:
        model: the model.
        images: the images.
        classes: names of the classes; the first is `others`.
        dataset: name of the data set.
        split: for the report.
        model_name: for the report.
        total: number of images, for the progress bar.
        seed: of the generated scenes.
        left_out: receives the images that fail; without it the first failure raises.

    Returns:
        {dataset, split, model, refiner, samples, images, classes, protocol, metrics: {overall}, by_class, latency,
        overlap, left_out} and `text_shares`; metrics in percent, see `SemanticMetrics`.

    Raises:
        ValueError: the masks of the model have no classes, or no image could be scored.
    """
    metrics, prompt, ids = SemanticMetrics(classes), "|".join(classes), []
    answers: list[MaskGroup] = []
    seconds = 0.0
    for one in track(images, total, f"Evaluating {dataset} {split}", "images"):
        group = None
        with going_on(left_out, f"image {one.image_id}"):
            picture = load_image(one.image)
            start = time.perf_counter()
            threshold = None if model.threshold is None else 0.0
            (group,) = model.select_many(picture, [prompt], threshold=threshold)
            seconds += time.perf_counter() - start
        if group is None:
            continue
        if group.labels is None:
            raise ValueError(f"the masks of model {model_name} have no classes; expected a model of Text4Seg")
        metrics.update(label_map(group, classes), one.classes)
        ids.append(one.image_id)
        answers.append(group)
    if not answers:
        reason = next(iter(left_out.reasons.values()), "there is none") if left_out is not None else "there is none"
        raise ValueError(f"no image of {dataset} {split} could be scored: {reason}")
    facts = model.facts()
    known = "scenes" if dataset == GENERATED_CLASSES else dataset
    return {
        "dataset": dataset,
        "split": split,
        "model": model_name,
        "refiner": facts.refiner,
        **facts.stated_parts,
        "samples": len(answers),
        "images": len(answers),
        "classes": len(classes),
        "protocol": {
            "name": "semantic",
            "source": "Text4Seg, arXiv 2410.09855",
            "path": "public predict path: Model.select_many, one prompt that lists all classes",
            "others": "class 0; predictions where the truth is 0 become 0, so that its IoU is high for every model",
            "absent classes": "a class that neither occurs nor is predicted is left out of the means",
        },
        "metrics": {"overall": metrics.report()},
        "by_class": metrics.by_class(),
        **text_shares(answers),
        "latency": {"seconds_per_image": round(seconds / len(answers), 4)},
        "overlap": find_overlaps(facts.training, known, split, seed, ids),
        "left_out": {} if left_out is None else left_out.as_json(),
    }


def label_map(group: MaskGroup, classes: Sequence[str]) -> Tensor:
    """The class of each pixel, (H, W) int64, 0 where no mask is; where masks overlap, the higher number wins."""
    numbers = [classes.index(label) for label in group.labels or ()]
    painted = torch.zeros(group.size, dtype=torch.int64)
    for number, mask in sorted(zip(numbers, group, strict=True), key=lambda pair: pair[0]):
        painted[torch.from_numpy(mask)] = number
    return painted
