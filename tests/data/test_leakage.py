"""What a model may have seen of what it is evaluated on."""

from pathlib import Path
from typing import Any

import pytest

from maskselect.data.leakage import find_overlaps
from tests.data import test_coco

SCENES = {"class_path": "maskselect.data.groups.SceneGroups", "init_args": {"split": "train", "seed": 0, "count": 5}}


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
    (sentence,) = find_overlaps(source, *evaluated)
    assert told in sentence


@pytest.mark.parametrize(
    ("source", "evaluated"),
    [
        (SCENES, ("scenes", "test")),
        (SCENES, ("refcoco", "val")),
        (_trained("rrsisd", "train"), ("refcoco", "val")),
        (_trained("own", "train"), ("own", "val")),
        (None, ("refcoco", "val")),
    ],
)
def test_nothing_to_tell(source: dict[str, Any] | None, evaluated: tuple[str, str]) -> None:
    assert find_overlaps(source, *evaluated) == []


def test_pictures_are_counted_where_the_training_data_is_there(tmp_path: Path) -> None:
    root = test_coco.coco_root(tmp_path)
    source = _trained("coco", "val2017")
    source["init_args"]["root"] = str(root)
    told = find_overlaps(source, "refcoco", "val", images=["7", "7", "0003", "99"])
    assert told == ["2 of the 3 evaluated pictures were in the training data"]
    assert find_overlaps(source, "refcoco", "val", images=["99", "98"]) == []
    source["init_args"]["root"] = str(tmp_path / "gone")
    assert "unless that set left them out" in find_overlaps(source, "refcoco", "val", images=["99"])[0]
