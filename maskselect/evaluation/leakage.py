"""Overlap of training and evaluation data, as cards, proposers and the catalog state it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from maskselect.data.catalog import CATALOG, CatalogEntry
from maskselect.data.refer import VARIANTS
from maskselect.data.subsets import chosen_samples, picture_number
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
    """One sentence per overlap of training data with an evaluated split.

    Args:
        learned: the training data; empty if unknown.
        dataset: name of the evaluated data set.
        split: the evaluated split.
        seed: of generated scenes.
        images: ids of the evaluated images. They are looked up in the training data if it is on this machine.
        who: what was trained, as the sentences name it.
    """
    names = list(images)
    sentences = (sentence for one in learned for sentence in _overlap(one, dataset, split, seed, names, who))
    return list(dict.fromkeys(sentences))


def candidates_overlaps(
    provenances: Iterable[Provenance], dataset: str, split: str, seed: int = 0, images: Iterable[str] = ()
) -> list[str]:
    """`find_overlaps` of the proposers of the candidates; see `maskselect.structures.provenance.trained_on`."""
    names, sentences = list(images), dict[str, None]()
    for one in provenances:
        who = f"the candidates' proposer ({one.weights})"
        sentences |= dict.fromkeys(find_overlaps(one.data, dataset, split, seed, names, who))
    return list(sentences)


def threshold_overlaps(
    chosen: Iterable[TrainingData], dataset: str, split: str, seed: int = 0, images: Iterable[str] = ()
) -> list[str]:
    """One sentence per overlap of an evaluated split with the data on which the selection threshold was chosen.

    Pictures that several data sets share are compared only if the data is on this machine. For the arguments see
    `find_overlaps`.
    """
    numbers, sentences = {picture_number(image) for image in images}, dict[str, None]()
    for one in chosen:
        generated = one.dataset in GENERATED and dataset in GENERATED
        if generated and (one.split, one.seed) == (split, seed):
            sentences[f"the threshold was chosen on the scenes of split {split}, seed {seed}"] = None
        elif not generated and (one.dataset, one.split) == (dataset, split):
            sentences[f"the threshold was chosen on this very split, {dataset} {split}"] = None
        elif (entry := CATALOG.get(one.dataset)) and dataset in CATALOG and entry.pictures == CATALOG[dataset].pictures:
            shared = len(numbers & (_training_images(entry, one) or set())) if entry.pictures else 0
            if shared:
                sentences[f"the threshold was chosen on {shared} of the {len(numbers)} evaluated pictures"] = None
    return list(sentences)


def threshold_origin(threshold: float | None, chosen: Iterable[TrainingData]) -> str | None:
    """Where the selection threshold comes from, for reports; None without a threshold."""
    seeds = [(one, "" if one.seed is None else f", seed {one.seed}") for one in chosen]
    named = [f"{one.dataset} {one.split}{seed}{one.described_images}" for one, seed in seeds]
    if threshold is None:
        return None
    return f"{threshold:g}, chosen on {' and '.join(named)}" if named else f"{threshold:g}, not chosen on data"


def _overlap(one: TrainingData, dataset: str, split: str, seed: int, images: list[str], who: str) -> list[str]:
    if one.dataset in GENERATED:
        same = dataset in GENERATED and (one.split, one.seed) == (split, seed)
        return [f"{who} was trained on the scenes of split {split}, seed {seed}"] if same else []
    if "scenes-clips" in (one.dataset, dataset):
        same = (one.dataset, one.split, one.seed) == (dataset, split, seed)
        return [f"{who} was trained on the clips of split {split}, seed {seed}"] if same else []
    if (one.dataset, one.split) == (dataset, split):
        return [f"{who} was trained on this very split, {dataset} {split}"]
    trained, evaluated = CATALOG.get(one.dataset), CATALOG.get(dataset)
    if trained is None or evaluated is None or not trained.pictures or trained.pictures != evaluated.pictures:
        return []
    known = _training_images(trained, one)
    if known is None and dataset in one.without and split != "train":
        return []
    if known is None:
        return _overlap_of_splits((one.dataset, one.split), (dataset, split), trained.pictures, who)
    numbers = {picture_number(image) for image in images}
    shared = len(numbers & known)
    return [f"{shared} of the {len(numbers)} evaluated pictures were in the training data of {who}"] if shared else []


def _training_images(entry: CatalogEntry, data: TrainingData) -> set[str] | None:
    """The numbers of the training images; None if the training data is not on this machine."""
    settings = {"without": data.without} if data.without else {}
    try:
        names = entry.open(Path(data.root), data.split, **settings).image_ids() if data.root else None
    except (ValueError, OSError):
        return None
    if names is None:
        return None
    subset = chosen_samples(names, data.part, data.held_out_share, data.image_share, numbered=bool(entry.pictures))
    return {picture_number(names[number]) for number in subset[: data.limit]}


# Data sets with pictures of COCO.


class _Part(NamedTuple):
    """A part of COCO 2017. half: "" if unknown; the two halves share no picture.  whole: whether it is all of it."""

    half: Literal["train2017", "val2017", ""]
    whole: bool


def _part(dataset: str, split: str) -> _Part:
    """The part of COCO that a split's pictures come from, as far as the folders of the data set tell.

    train2017 is train2014 and all of val2014 but the 5,000 of val2017 (https://cocodataset.org/#download). So it holds
    the pictures of the RefCOCO family, which are of train2014. LVIS v1 trains on 100,170 of its pictures and validates
    on others and on val2017 (https://www.lvisdataset.org/dataset).
    """
    short = split.removesuffix("2017")
    if dataset in ("coco", "coco-panoptic", "coco-stuff", "pix2cap") and short in ("train", "val"):
        return _Part("train2017" if short == "train" else "val2017", dataset != "pix2cap")
    of_refer = dataset in VARIANTS and VARIANTS[dataset].images == "coco"
    if of_refer or dataset == "llm-seg40k" or (dataset, split) == ("lvis", "train"):
        return _Part("train2017", False)
    return _Part("", False)


def _overlap_of_splits(trained: tuple[str, str], evaluated: tuple[str, str], pictures: str, who: str) -> list[str]:
    """The sentence about two splits whose pictures have one origin."""
    learned, tested = _part(*trained), _part(*evaluated)
    apart = {learned.half, tested.half} == {"train2017", "val2017"}
    if apart or {trained, evaluated} == {("lvis", "train"), ("lvis", "val")}:
        return []
    if learned == ("train2017", True) and tested.half == "train2017":
        return [
            f"{who} was trained on all of COCO's train2017, which holds the COCO pictures of {evaluated[0]}: it has "
            "seen those that are evaluated"
        ]
    return [
        f"{who} was trained on {' '.join(trained)}, whose pictures are {pictures}'s like those of {evaluated[0]}: "
        "unless that set left them out, it has seen evaluated pictures"
    ]
