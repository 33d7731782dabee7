"""Whether a model, or who proposes its candidates, may have been trained on what it is evaluated on.

Read from what cards and proposers state that they learned from, and from the catalog.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from maskselect.data.catalog import CATALOG, CatalogEntry
from maskselect.data.refer import VARIANTS
from maskselect.scenes.asking import GENERATED
from maskselect.structures.provenance import Provenance, TrainingData


def find_overlaps(
    learned: Iterable[TrainingData],
    dataset: str,
    split: str,
    seed: int = 0,
    images: Iterable[str] = (),
    who: str = "the model",
) -> list[str]:
    """Sentences for the report, none where nothing is shared.

    learned: what the weights learned from; empty where it is not known.
    dataset, split, seed: what is evaluated; the seed of generated scenes.
    images: the evaluated images' ids. Where the training data is still where it was, they are looked for in it.
    who: was trained on it.
    """
    names = list(images)
    told = (sentence for one in learned for sentence in _overlap(one, dataset, split, seed, names, who))
    return list(dict.fromkeys(told))


def _overlap(one: TrainingData, dataset: str, split: str, seed: int, images: list[str], who: str) -> list[str]:
    if one.dataset in GENERATED:
        same = dataset in GENERATED and (one.split, one.seed) == (split, seed)
        return [f"{who} was trained on the scenes of split {split}, seed {seed}"] if same else []
    if (one.dataset, one.split) == (dataset, split):
        return [f"{who} was trained on this very split, {dataset} {split}"]
    entries = CATALOG.get(one.dataset), CATALOG.get(dataset)
    if (
        entries[0] is None
        or entries[1] is None
        or not entries[0].pictures
        or entries[0].pictures != entries[1].pictures
    ):
        return []
    known = _training_images(entries[0], one)
    if known is not None:
        evaluated = {_number(image) for image in images}
        seen = len(evaluated & known)
        told = f"{seen} of the {len(evaluated)} evaluated pictures were in the training data of {who}"
        return [told] if seen else []
    return _of_pictures((one.dataset, one.split), (dataset, split), entries[0].pictures, who)


def candidates_overlaps(
    provenances: Iterable[Provenance], dataset: str, split: str, seed: int = 0, images: Iterable[str] = ()
) -> list[str]:
    """The same of those who proposed the candidates, each sentence once.

    provenances: what their weights learned from, see `maskselect.structures.provenance.trained_on`.
    """
    names = list(images)
    told = (
        find_overlaps(one.data, dataset, split, seed, names, f"the candidates' proposer ({one.weights})")
        for one in provenances
    )
    return list(dict.fromkeys(sentence for sentences in told for sentence in sentences))


def _training_images(entry: CatalogEntry, data: TrainingData) -> set[str] | None:
    """The numbers of the pictures that a model was trained on, or None where its data is not there any more."""
    try:
        found = entry.open(Path(data.root), data.split).image_ids() if data.root else None
    except (ValueError, OSError):
        return None
    return None if found is None else {_number(image) for image in found[: data.limit]}


def _number(image: str) -> str:
    """What names a picture whoever speaks of it: COCO's 139 is "139", "coco/139" and "COCO_train2014_000000000139.jpg".

    An id without a number at its end stands for itself.
    """
    found = re.search(r"(\d+)(\.\w+)?$", image)
    return found[1].lstrip("0") if found else image


# Data sets of COCO's pictures.


class _Part(NamedTuple):
    """Of COCO 2017, whose two halves share no picture: which half, "" where that is not known; whether all of it."""

    half: Literal["train2017", "val2017", ""]
    whole: bool


def _part(dataset: str, split: str) -> _Part:
    """Where the COCO pictures of a split come from, as far as its reader can tell by the folder that they lie in.

    train2017 is train2014 and all of val2014 but the 5,000 of val2017 (https://cocodataset.org/#download), so the
    pictures of RefCOCO and its kin, which are of train2014, are in it. LVIS v1 trains on 100,170 of its pictures and
    validates on others and on val2017 (https://www.lvisdataset.org/dataset).
    """
    short = split.removesuffix("2017")
    if dataset in ("coco", "coco-panoptic", "coco-stuff") and short in ("train", "val"):
        return _Part("train2017" if short == "train" else "val2017", True)
    if dataset == "pix2cap" and short in ("train", "val"):
        return _Part("train2017" if short == "train" else "val2017", False)
    of_refer = dataset in VARIANTS and VARIANTS[dataset].images == "coco"
    if of_refer or dataset == "llm-seg40k" or (dataset, split) == ("lvis", "train"):
        return _Part("train2017", False)
    return _Part("", False)


def _of_pictures(trained: tuple[str, str], evaluated: tuple[str, str], pictures: str, who: str) -> list[str]:
    """The sentence about two splits of pictures that have one origin."""
    learned, asked = _part(*trained), _part(*evaluated)
    apart = {learned.half, asked.half} == {"train2017", "val2017"}
    if apart or {trained, evaluated} == {("lvis", "train"), ("lvis", "val")}:
        return []
    if learned == ("train2017", True) and asked.half == "train2017":
        return [
            f"{who} was trained on all of COCO's train2017, which holds the COCO pictures of {evaluated[0]}: it has "
            "seen those that are evaluated"
        ]
    return [
        f"{who} was trained on {' '.join(trained)}, whose pictures are {pictures}'s like those of {evaluated[0]}: "
        "unless that set left them out, it has seen evaluated pictures"
    ]
