"""What a model may have seen of what it is evaluated on."""

from pathlib import Path
from typing import Any

import pytest

from maskselect.backends.training_data import threshold_data, training_data
from maskselect.evaluation.leakage import candidates_overlaps, find_overlaps, threshold_origin, threshold_overlaps
from maskselect.structures.provenance import Provenance, TrainingData
from tests.data import test_coco

SCENES = {"class_path": "maskselect.scenes.groups.SceneGroups", "init_args": {"split": "train", "seed": 0, "count": 5}}


def _trained(dataset: str, split: str) -> dict[str, Any]:
    return {"class_path": "maskselect.data.groups.DatasetGroups", "init_args": {"dataset": dataset, "split": split}}


@pytest.mark.parametrize(
    ("source", "evaluated", "told"),
    [
        (_trained("muse", "train"), ("refcoco", "val"), "pictures are COCO's like those of refcoco"),
        (_trained("refcoco", "val"), ("refcoco", "val"), "trained on this very split"),
        (SCENES, ("scenes", "train"), "split train, seed 0"),
    ],
)
def test_told(source: dict[str, Any], evaluated: tuple[str, str], told: str) -> None:
    (sentence,) = find_overlaps(training_data(source), *evaluated)
    assert told in sentence


@pytest.mark.parametrize(
    ("source", "evaluated"),
    [
        (SCENES, ("scenes", "test")),
        (SCENES, ("refcoco", "val")),
        (_trained("rrsisd", "train"), ("refcoco", "val")),
        (_trained("own", "train"), ("own", "val")),
        (_trained("coco", "train2017"), ("coco", "val2017")),
        (_trained("coco", "train"), ("coco-panoptic", "val2017")),
        (_trained("coco", "train2017"), ("pix2cap", "val")),
        (_trained("coco", "train2017"), ("reasonseg", "val")),
        (_trained("coco", "train2017"), ("refclef", "test")),
        (_trained("coco", "train2017"), ("rrsisd", "test")),
        (_trained("coco", "train2017"), ("scenes", "test")),
        (_trained("lvis", "train"), ("coco", "val2017")),
        (_trained("lvis", "train"), ("lvis", "val")),
        (None, ("refcoco", "val")),
    ],
)
def test_nothing_to_tell(source: dict[str, Any] | None, evaluated: tuple[str, str]) -> None:
    assert find_overlaps(training_data(source), *evaluated) == []


def test_pictures_are_counted_where_the_training_data_is_there(tmp_path: Path) -> None:
    root = test_coco.coco_root(tmp_path)
    source = _trained("coco", "val2017")
    source["init_args"]["root"] = str(root)
    told = find_overlaps(training_data(source), "refcoco", "val", images=["7", "7", "0003", "99"])
    assert told == ["2 of the 3 evaluated pictures were in the training data of the model"]
    assert find_overlaps(training_data(source), "refcoco", "val", images=["99", "98"]) == []
    source["init_args"] |= {"root": str(tmp_path / "gone"), "split": "train2017"}
    assert "which holds the COCO pictures" in find_overlaps(training_data(source), "refcoco", "val", images=["99"])[0]


@pytest.mark.parametrize(
    "evaluated",
    [
        *((name, "val") for name in ("refcoco", "refcoco+", "refcocog", "refcocog-google", "grefcoco")),
        ("refcoco-google", "test"),
        ("refzom", "test"),
        ("llm-seg40k", "test"),
        ("lvis", "train"),
        ("coco-stuff", "train2017"),
    ],
)
def test_whoever_learned_from_all_of_train2017_has_seen_it(evaluated: tuple[str, str]) -> None:
    proposer = Provenance.of_dataset("the weights", "coco", "train2017")
    assert candidates_overlaps([proposer, proposer], *evaluated, images=["1", "2"]) == [
        "the candidates' proposer (the weights) was trained on all of COCO's train2017, which holds the COCO pictures "
        f"of {evaluated[0]}: it has seen those that are evaluated"
    ]


@pytest.mark.parametrize(
    ("trained", "evaluated"),
    [
        (("lvis", "train"), ("refcoco", "val")),  # of its pictures, which are of train2017, LVIS trains on some
        (("lvis", "train"), ("paco", "test")),
        (("coco", "train2017"), ("muse", "val")),
        (("coco", "train2017"), ("lvis", "val")),
    ],
)
def test_whoever_learned_from_some_of_coco_may_have_seen_it(
    trained: tuple[str, str], evaluated: tuple[str, str]
) -> None:
    (told,) = candidates_overlaps([Provenance.of_dataset("the weights", *trained)], *evaluated)
    assert told == (
        f"the candidates' proposer (the weights) was trained on {' '.join(trained)}, whose pictures are COCO's like "
        f"those of {evaluated[0]}: unless that set left them out, it has seen evaluated pictures"
    )


def test_what_a_source_leaves_out_is_its_default() -> None:
    scenes = {"class_path": "maskselect.scenes.groups.SceneGroups", "init_args": {}}
    assert find_overlaps(training_data(scenes), "scenes", "train", 0)
    assert find_overlaps(training_data(scenes), "scenes-reasoning", "train", 0)
    assert not find_overlaps(training_data(scenes), "scenes", "test", 5)
    plain = {"class_path": "maskselect.data.groups.DatasetGroups", "init_args": {"dataset": "refcoco"}}
    assert find_overlaps(training_data(plain), "refcoco", "train") == [
        "the model was trained on this very split, refcoco train"
    ]


def test_the_very_split() -> None:
    (told,) = candidates_overlaps([Provenance.of_dataset("the weights", "lvis", "train")], "lvis", "train")
    assert told == "the candidates' proposer (the weights) was trained on this very split, lvis train"


def test_pictures_that_were_held_out_are_not_counted(tmp_path: Path) -> None:
    root = test_coco.coco_root(tmp_path)
    source = _trained("coco", "val2017")
    source["init_args"] |= {"root": str(root), "part": "held_out"}
    (apart,) = {image for image in ("3", "7") if find_overlaps(training_data(source), "refcoco", "val", images=[image])}
    source["init_args"]["part"] = "training"
    assert find_overlaps(training_data(source), "refcoco", "val", images=[apart]) == []


def test_a_sibling_set_that_was_left_out_is_no_leak() -> None:
    source = _trained("refcoco", "train")
    assert find_overlaps(training_data(source), "refcocog", "test")
    source["init_args"]["settings"] = {"without": ["refcocog"]}
    assert find_overlaps(training_data(source), "refcocog", "test") == []
    assert find_overlaps(training_data(source), "refcoco+", "val")


# --- the threshold ----------------------------------------------------------------------------------------------------

GROUPS = "maskselect.training.data.GroupsData"


def _card(val: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"data": {"class_path": GROUPS, "init_args": {"val": val}}, "metrics": {"val/f1@0.5": 0.7}} | fields


def test_training_chooses_the_threshold_on_its_validation_source() -> None:
    source = {"class_path": "maskselect.data.groups.DatasetGroups"}
    source |= {"init_args": {"dataset": "grefcoco", "split": "train", "part": "held_out"}}
    data = threshold_data(_card(source))
    assert threshold_origin(0.4, data) == "0.4, chosen on grefcoco train, held-out images"
    assert threshold_overlaps(data, "grefcoco", "val", images=["1"]) == []
    assert threshold_overlaps(data, "grefcoco", "train") == [
        "the threshold was chosen on this very split, grefcoco train"
    ]
    assert threshold_data(_card(source, metrics={})) == []  # an imported checkpoint, or one of a system without
    assert threshold_origin(0.5, []) == "0.5, not chosen on data" and threshold_origin(None, data) is None


def test_calibrate_says_where_its_threshold_comes_from() -> None:
    rule = {"dataset": "scenes", "split": "test", "samples": 1200, "least_n_acc": 88.0}
    card = _card(_trained("refcoco", "val"), threshold_from=rule | {"seed": 5})
    assert threshold_origin(0.88, threshold_data(card)) == "0.88, chosen on scenes test, seed 5"
    (sentence,) = threshold_overlaps(threshold_data(card), "scenes-unknown", "test", 5)
    assert sentence == "the threshold was chosen on the scenes of split test, seed 5"
    assert threshold_overlaps(threshold_data(card), "scenes", "test", 6) == []
    old = {"threshold_from": rule}  # cards of older versions do not name the seed
    assert threshold_origin(0.88, threshold_data(old)) == "0.88, chosen on scenes test"


def test_pictures_on_which_the_threshold_was_chosen_are_counted(tmp_path: Path) -> None:
    data = TrainingData("coco", "val2017", root=str(test_coco.coco_root(tmp_path)))
    assert threshold_overlaps([data], "refcoco", "val", images=["7", "0003", "99"]) == [
        "the threshold was chosen on 2 of the 3 evaluated pictures"
    ]
    gone = TrainingData("coco", "val2017", root=str(tmp_path / "gone"))
    assert threshold_overlaps([gone], "refcoco", "val", images=["7"]) == []
