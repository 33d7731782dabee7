"""ADE20K, COCO-Stuff and Mapillary Vistas, on tiny files in the published form."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data import label_images
from maskselect.data.check import check
from maskselect.data.label_images import present_values, read_label
from maskselect.data.semantic import ADE20K, COCO_STUFF, Ade20kDataset, CocoStuffDataset, VistasDataset

Rows = list[list[int]]


def label_of(rows: Rows) -> np.ndarray:
    """Four rows of six pixels: each row is [value, how many of it, value, how many, …] and repeated twice."""
    lines = [np.repeat(row[::2], row[1::2]) for row in rows]
    return np.repeat(np.stack(lines), 2, axis=0).astype(np.uint8)


def save(path: Path, label: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    if palette:
        image = Image.fromarray(label, "P")
        image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.save(path)


def picture(path: Path, size: tuple[int, int] = (4, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)


def pair(root: Path, label: str, image: str, rows: Rows, palette: bool = False) -> None:
    save(root / label, label_of(rows), palette)
    picture(root / image)


def ade_root(root: Path) -> Path:
    for stem, rows in (("ADE_train_2", [[1, 4, 0, 2], [150, 6]]), ("ADE_train_1", [[0, 6], [13, 3, 1, 3]])):
        pair(root, f"ade20k/annotations/training/{stem}.png", f"ade20k/images/training/{stem}.jpg", rows)
    return root


def test_lists_of_classes() -> None:
    assert (len(ADE20K), ADE20K[0], ADE20K[12], ADE20K[-1]) == (150, "wall", "person", "flag")
    assert (len(COCO_STUFF), COCO_STUFF[0], COCO_STUFF[95], COCO_STUFF[-1]) == (182, "person", "building-other", "wood")


def test_ade20k(tmp_path: Path) -> None:
    data = Ade20kDataset(ade_root(tmp_path), "training")
    samples = list(data)
    assert [(s.sample_id, s.prompt.text, s.targets) for s in samples] == [
        ("ADE_train_1:1", "wall", (0,)),
        ("ADE_train_1:13", "person", (1,)),
        ("ADE_train_2:1", "wall", (0,)),
        ("ADE_train_2:150", "flag", (1,)),
    ]
    assert data.image_ids() == [s.image_id for s in samples] == ["ADE_train_1"] * 2 + ["ADE_train_2"] * 2
    first = samples[0]
    assert first.gt_pool.shape == (2, 4, 6) and first.kind == "category"
    assert torch.equal(first.target_mask, torch.tensor([[0] * 6] * 2 + [[0, 0, 0, 1, 1, 1]] * 2).bool())
    assert first.ignore is not None and torch.equal(first.ignore, torch.tensor([[1] * 6] * 2 + [[0] * 6] * 2).bool())
    assert first.image == tmp_path / "ade20k/images/training/ADE_train_1.jpg"
    assert len(Ade20kDataset(tmp_path / "ade20k", "train")) == 4
    report = check(data)
    assert not report.problems and report.targets == 4


def stuff_root(root: Path) -> Path:
    rows = [[0, 2, 95, 4], [255, 1, 181, 5]]  # person and building-other; unlabelled and wood
    pair(root, "cocostuff/val2017/000000000009.png", "coco/val2017/000000000009.jpg", rows)
    return root


def test_coco_stuff_leaves_out_what_has_a_dash(tmp_path: Path) -> None:
    stuff_root(tmp_path)
    save(tmp_path / "cocostuff/val2017/000000000009_labelTrainIds.png", label_of([[3, 6], [3, 6]]))
    samples = list(CocoStuffDataset(tmp_path))
    assert [(s.sample_id, s.prompt.text) for s in samples] == [
        ("000000000009:0", "person"),
        ("000000000009:181", "wood"),
    ]
    assert samples[0].ignore is not None and samples[0].ignore.sum(dim=1).tolist() == [4, 4, 1, 1]
    assert samples[1].target_mask.sum(dim=1).tolist() == [0, 0, 5, 5]
    assert samples[0].image == tmp_path / "coco/val2017/000000000009.jpg"


def test_coco_stuff_with_its_images_beside(tmp_path: Path) -> None:
    pair(tmp_path, "train2017/1.png", "train2017/1.jpg", [[2, 6], [2, 6]])
    sample = CocoStuffDataset(tmp_path, "train")[0]
    assert sample.prompt.text == "car" and sample.image == tmp_path / "train2017/1.jpg"


VISTAS = [
    {"name": "animal--bird", "readable": "Bird", "evaluate": True, "color": [165, 42, 42], "instances": True},
    {"name": "object--pole", "readable": "Pole", "evaluate": True},
    {"name": "object--support--pole", "readable": "Pole"},
    {"name": "void--unlabeled", "readable": "Unlabeled", "evaluate": False},
]


def vistas_root(root: Path, labels: Any = VISTAS) -> Path:
    home = root / "mapillary"
    rows = [[0, 1, 1, 2, 2, 3], [255, 3, 3, 3]]
    pair(home, "validation/v2.0/labels/a_B-1.png", "validation/images/a_B-1.jpg", rows, palette=True)
    (home / "config_v2.0.json").write_text(json.dumps({"version": 2.0, "labels": labels}))
    return root


def test_vistas(tmp_path: Path) -> None:
    samples = list(VistasDataset(vistas_root(tmp_path)))
    assert [(s.sample_id, s.prompt.text) for s in samples] == [("a_B-1:0", "bird"), ("a_B-1:1", "pole")]
    assert samples[1].target_mask.sum(dim=1).tolist() == [5, 5, 0, 0]  # two values of one name are one class
    assert samples[0].ignore is not None and samples[0].ignore.sum(dim=1).tolist() == [0, 0, 6, 6]
    assert str(samples[0].image).endswith("validation/images/a_B-1.jpg")


@pytest.mark.parametrize("labels", [5, [5], [{"name": "a"}], None, [VISTAS[0]] * 256])
def test_a_configuration_that_is_none(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(ValueError, match=r"config_v2\.0\.json has"):
        VistasDataset(vistas_root(tmp_path, labels))


def test_labels_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = ade_root(tmp_path)
    folder = root / "ade20k/annotations/training"
    read: list[str] = []

    def counted(path: Path) -> np.ndarray:
        read.append(path.stem)
        return read_label(path)

    monkeypatch.setattr(label_images, "read_label", counted)
    assert present_values(folder) == {"ADE_train_1": [0, 1, 13], "ADE_train_2": [0, 1, 150]}
    assert sorted(read) == ["ADE_train_1", "ADE_train_2"]
    assert len(Ade20kDataset(root, "training")) == 4 and len(read) == 2
    save(folder / "ADE_train_1.png", label_of([[7, 6], [8, 6]]))
    os.utime(folder / "ADE_train_1.png", ns=(1, 1))
    (folder / "ADE_train_2.png").unlink()
    assert present_values(folder) == {"ADE_train_1": [7, 8]} and read[2:] == ["ADE_train_1"]


def test_what_was_kept_lies_beside_the_folder_or_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ade_root(tmp_path) / "ade20k/annotations/training"
    monkeypatch.delenv("MASKSELECT_INDEX")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    beside = folder.with_name("training.classes.json")
    present_values(folder)
    assert json.loads(beside.read_text())["labels"]["ADE_train_1"][1] == [0, 1, 13]
    for damaged in ("{", "[]", '{"version": 1, "labels": {"ADE_train_1": 5, "ADE_train_2": [[1], ["x"]]}}'):
        beside.write_text(damaged)
        assert present_values(folder) == {"ADE_train_1": [0, 1, 13], "ADE_train_2": [0, 1, 150]}
    beside.unlink()
    beside.mkdir()  # what cannot be replaced cannot be written
    present_values(folder)
    assert len(list((tmp_path / "cache/maskselect/index").glob("training.*.classes.json"))) == 1
    assert not list(folder.parent.glob("*.part"))


def test_a_damaged_label_is_met_on_the_way_and_not_kept(tmp_path: Path) -> None:
    root = ade_root(tmp_path)
    path = root / "ade20k/annotations/training/ADE_train_1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    data = Ade20kDataset(root, "training")
    assert data.image_ids() == ["ADE_train_1", "ADE_train_2", "ADE_train_2"]
    with pytest.raises(ValueError, match=r"label .*ADE_train_1\.png is truncated"):
        data[0]
    assert data[1].prompt.text == "wall" and check(data).problems["annotation or image damaged"] == 1
    path.write_bytes(whole)
    assert len(Ade20kDataset(root, "training")) == 4


def test_labels_that_cannot_be_used(tmp_path: Path) -> None:
    root = ade_root(tmp_path)
    path = root / "ade20k/annotations/training/ADE_train_1.png"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"ADE_train_1\.png is of mode RGB; expected one channel"):
        Ade20kDataset(root, "training")[0]
    save(path, label_of([[1, 3, 151, 3], [1, 6]]))
    with pytest.raises(ValueError, match=r"ADE_train_1\.png has the value 151, which is no class"):
        Ade20kDataset(root, "training")[0]
    save(path, label_of([[1, 6], [1, 6]]))
    picture(root / "ade20k/images/training/ADE_train_1.jpg", (8, 12))
    with pytest.raises(ValueError, match=r"ADE_train_1\.png is of size \[4, 6\], its image of \[8, 12\]"):
        Ade20kDataset(root, "training")[0]
    (root / "ade20k/images/training/ADE_train_1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"image 'ADE_train_1\.jpg' is in none of"):
        Ade20kDataset(root, "training")[0]
    picture(root / "ade20k/images/training/ADE_train_1.png")
    assert str(Ade20kDataset(root, "training")[0].image).endswith("images/training/ADE_train_1.png")


def test_missing_layouts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ade20k/annotations/validation .*ADEChallengeData2016"):
        Ade20kDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cocostuff/val2017 .*stuffthingmaps_trainval2017\.zip"):
        CocoStuffDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mapillary/config_v2\.0\.json; get it"):
        VistasDataset(tmp_path)
    (tmp_path / "mapillary").mkdir()
    (tmp_path / "mapillary/config_v2.0.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no Vistas labels of testing in .*v2\.0/labels"):
        VistasDataset(tmp_path, "testing")
    (tmp_path / "cocostuff/val2017").mkdir(parents=True)
    (tmp_path / "val2017").mkdir()
    with pytest.raises(FileNotFoundError, match=r"cocostuff/val2017 has no \.png files"):
        CocoStuffDataset(tmp_path)


def test_a_copy_for_a_worker_is_small(tmp_path: Path) -> None:
    data = Ade20kDataset(ade_root(tmp_path), "training")
    assert data[3].targets == (1,)
    packed = pickle.dumps(data)
    assert len(packed) < 8000 and [s.sample_id for s in pickle.loads(packed)] == [s.sample_id for s in data]
