"""Semantic segmentation through the evaluator: perfect answers score 100, and every flaw is counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect import cli
from maskselect.cli import loading
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.evaluation.semantic import SEMANTIC_DATASETS, evaluate_classes, label_map, open_label_maps
from maskselect.predictor import Model
from maskselect.scenes.classes import SCENE_CLASSES, label_scenes
from maskselect.structures.left_out import LeftOut
from maskselect.systems.text4seg import Text4Seg
from tests.data.test_label_maps import own
from tests.systems.skeleton import Halves
from tests.systems.test_text4seg_tasks import says, tiny
from tests.systems.tiny import tiny_ras

TOLD = {"dataset": "scenes-classes", "split": "val", "model_name": "tiny"}


def texts_of(count: int, grid: int = 64) -> list[str]:
    """What a perfect model writes about the first scenes, on a fine grid."""
    codec, texts = DescriptorCodec(grid=grid, special_tags=True), []
    for one in label_scenes("val", 3, count):
        masks = torch.stack([one.classes == n for n in range(1, len(SCENE_CLASSES))])
        texts.append(codec.encode(masks, SCENE_CLASSES[1:]))
    return texts


def fine() -> Text4Seg:
    return tiny("text4seg", codec=DescriptorCodec(grid=64, special_tags=True)).eval()


def run(system: Text4Seg, count: int, **options: Any) -> dict[str, Any]:
    classes, images, total = open_label_maps("scenes-classes", None, "val", limit=count, seed=3)
    report = evaluate_classes(Model(system, threshold=0.9), images, classes, total=total, **TOLD, **options)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    return report


def test_scenes_have_the_categories_of_their_objects() -> None:
    (one,) = label_scenes("test", 0, 1, (96, 128))
    assert one.image_id == "test-0-0" and one.classes.shape == (96, 128) and one.classes.dtype == torch.uint8
    assert set(one.classes.unique().tolist()) <= set(range(21)) and one.classes.max() > 0
    with pytest.raises(ValueError, match="no split 'x'"):
        label_scenes("x", 0, 1)


def test_what_is_right_scores_high_and_what_is_missing_less(monkeypatch: pytest.MonkeyPatch) -> None:
    system = fine()
    says(system, monkeypatch, texts_of(3))
    report = run(system, 3)
    overall = report["metrics"]["overall"]
    assert overall["samples"] == report["images"] == 3 and report["classes"] == 21
    assert overall["mIoU w/o others"] > 80 and overall["mIoU"] > overall["mIoU w/o others"]
    assert (report["undecoded"], report["repaired"], report["cut"]) == (0, 0, 0)
    assert list(report["by_class"]) == list(SCENE_CLASSES)
    nothing = DescriptorCodec(grid=64, special_tags=True).encode(torch.zeros(0, 64, 64, dtype=torch.bool), [])
    says(system, monkeypatch, [nothing] * 3)
    assert run(system, 3)["metrics"]["overall"]["mIoU w/o others"] == 0


def test_flaws_of_texts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    system = fine()
    good, other, third = texts_of(3)
    says(system, monkeypatch, [good, other.replace("</seg>", ""), "no masks"], cut=(1,))
    report = run(system, 3)
    assert (report["undecoded"], report["repaired"], report["cut"]) == (33.33, 33.33, 33.33)
    says(system, monkeypatch, [good, other, third.replace(" *", " * unicorn *", 1)])
    assert run(system, 3)["undecoded"] == 33.33  # an unknown word is a failure


def test_classes_are_painted_by_rising_number(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = DescriptorCodec(grid=4, special_tags=True)
    system = tiny("text4seg", codec=codec).eval()
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, 4:] = True, True
    says(system, monkeypatch, [codec.encode(masks, ["tall  grass", "sky"])])
    group = Model(system).select(np.zeros((8, 8, 3), np.uint8), "others|sky|tall grass", threshold=0.0)
    assert group.labels is not None and sorted(group.labels) == ["sky", "tall grass"]
    painted = label_map(group, ["others", "sky", "tall grass"])
    assert painted[:4].eq(2).all() and painted[4:].eq(1).all()
    records = group.to_json()["masks"]
    assert {record["label"]: record["bbox"] for record in records} == {"sky": [0, 4, 8, 4], "tall grass": [0, 0, 8, 4]}


def test_models_without_classes_are_refused() -> None:
    _, images, _ = open_label_maps("scenes-classes", None, "val", limit=1)
    with pytest.raises(ValueError, match="the masks of model tiny have no classes"):
        evaluate_classes(Model(Halves()), images, SCENE_CLASSES, **TOLD, left_out=LeftOut())
    _, images, _ = open_label_maps("scenes-classes", None, "val", limit=1)
    with pytest.raises(ValueError, match="have no classes"):
        evaluate_classes(Model(tiny_ras(), threshold=0.5), images, SCENE_CLASSES, **TOLD)


def test_the_command_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    codec = DescriptorCodec(grid=4, special_tags=True)
    system = tiny("text4seg", codec=codec).eval()
    root = own(tmp_path / "data")
    (root / "images/val/b.png").write_bytes(b"no picture")
    monkeypatch.setattr(loading, "load_model", lambda options: Model(system))
    left = torch.zeros(1, 4, 6, dtype=torch.bool)
    left[:, :, :3] = True
    says(system, monkeypatch, [codec.encode(left, ["sky"])] * 2)
    command = ["evaluate", "--model", "t", "--dataset", "label-maps", "--root", str(root), "--split", "val"]
    command += ["--output", str(tmp_path / "r.json")]
    assert cli.main(command) == 1  # b.png cannot be read
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["by_class"] == {"others": 0.0, "sky": 66.67, "tall grass": 0.0} and report["left_out"]["count"] == 1
    shown = capsys.readouterr().out
    assert "mIoU w/o others" in shown and "tall grass" in shown and "66.7" in shown
    command[2] = "other"
    assert cli.main(command) == 2 and "--overwrite" in capsys.readouterr().err
    command[command.index("label-maps")], command[2] = "scenes-classes", "t"
    assert cli.main(command) == 2 and "is generated; expected no --root" in capsys.readouterr().err
    assert "pas-20" in SEMANTIC_DATASETS
