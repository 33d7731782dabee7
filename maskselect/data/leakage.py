"""Whether a model may have been trained on what it is evaluated on, from its card's training source and the catalog."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from maskselect.data.catalog import CATALOG, CatalogEntry


def find_overlaps(
    source: Mapping[str, Any] | None, dataset: str, split: str, seed: int = 0, images: Iterable[str] = ()
) -> list[str]:
    """Sentences for the report, none where nothing is shared.

    source: the training source as a card holds it, `{class_path, init_args}`; None where it is not known.
    dataset, split, seed: what is evaluated; the seed of generated scenes.
    images: the evaluated images' ids. Where the training data is still where it was, they are looked for in it.
    """
    if not source:
        return []
    settings = dict(source.get("init_args") or {})
    if str(source.get("class_path", "")).endswith("SceneGroups"):
        return _of_scenes(settings, dataset, split, seed)
    trained, trained_split = str(settings.get("dataset", "")), str(settings.get("split", ""))
    if (trained, trained_split) == (dataset, split):
        return [f"the model was trained on this very split, {trained} {split}"]
    entries = CATALOG.get(trained), CATALOG.get(dataset)
    if (
        entries[0] is None
        or entries[1] is None
        or not entries[0].pictures
        or entries[0].pictures != entries[1].pictures
    ):
        return []
    known = _training_images(entries[0], settings)
    if known is not None:
        evaluated = {_number(image) for image in images}
        seen = len(evaluated & known)
        return [f"{seen} of the {len(evaluated)} evaluated pictures were in the training data"] if seen else []
    return [
        f"the model was trained on {trained} {trained_split}, whose pictures are {entries[0].pictures}'s like those of "
        f"{dataset}: unless that set left them out, it has seen evaluated pictures"
    ]


def _training_images(entry: CatalogEntry, settings: Mapping[str, Any]) -> set[str] | None:
    """The numbers of the pictures that a model was trained on, or None where its data is not there any more."""
    root, split = settings.get("root"), str(settings.get("split", "train"))
    try:
        found = entry.open(Path(str(root)), split).image_ids() if root else None
    except (ValueError, OSError):
        return None
    return None if found is None else {_number(image) for image in found[: settings.get("limit")]}


def _number(image: str) -> str:
    """What names a picture whoever speaks of it: COCO's 139 is "139", "coco/139" and "COCO_train2014_000000000139.jpg".

    An id without a number at its end stands for itself.
    """
    found = re.search(r"(\d+)(\.\w+)?$", image)
    return found[1].lstrip("0") if found else image


def _of_scenes(settings: Mapping[str, Any], dataset: str, split: str, seed: int) -> list[str]:
    same = dataset == "scenes" and settings.get("split") == split and settings.get("seed") == seed
    return [f"the model was trained on the scenes of split {split}, seed {seed}"] if same else []
