"""Whether a model may have been trained on what it is evaluated on, from its card's training source and the catalog."""

from collections.abc import Mapping
from typing import Any

from maskselect.data.catalog import CATALOG


def find_overlaps(source: Mapping[str, Any] | None, dataset: str, split: str, seed: int = 0) -> list[str]:
    """Sentences for the report, none where nothing is shared.

    source: the training source as a card holds it, `{class_path, init_args}`; None where it is not known.
    dataset, split, seed: what is evaluated; the seed of generated scenes.
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
    return [
        f"the model was trained on {trained} {trained_split}, whose pictures are {entries[0].pictures}'s like those of "
        f"{dataset}: unless that set left them out, it has seen evaluated pictures"
    ]


def _of_scenes(settings: Mapping[str, Any], dataset: str, split: str, seed: int) -> list[str]:
    same = dataset == "scenes" and settings.get("split") == split and settings.get("seed") == seed
    return [f"the model was trained on the scenes of split {split}, seed {seed}"] if same else []
