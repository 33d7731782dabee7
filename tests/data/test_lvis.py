"""LVIS and EgoObjects, on tiny files in the published form and on the real sample of LVIS v0.5."""

import doctest
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data import lvis
from maskselect.data.check import check
from maskselect.data.lvis import EgoObjectsDataset, LvisDataset, filled_box, readable_names

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]
SMALL = [[5, 5, 7, 5, 7, 7, 5, 7]]
ADDRESS = "http://images.cocodataset.org/{0}/{1:012}.jpg"
LVIS: dict[str, Any] = {
    "images": [
        {
            "id": 9,
            "coco_url": ADDRESS.format("train2017", 9),
            "height": 8,
            "width": 10,
            "neg_category_ids": [3, 4, 77],
            "not_exhaustive_category_ids": [2],
        },
        {
            "id": 4,
            "coco_url": ADDRESS.format("val2017", 4),
            "height": 8,
            "width": 10,
            "neg_category_ids": [1],
            "not_exhaustive_category_ids": [],
        },
    ],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 2, "segmentation": SQUARE},
        {"id": 2, "image_id": 9, "category_id": 1, "segmentation": SMALL},
        {"id": 3, "image_id": 9, "category_id": 2, "segmentation": SMALL},
    ],
    "categories": [
        {"id": 1, "name": "car_(automobile)"},
        {"id": 2, "name": "mouse_(computer_equipment)"},
        {"id": 3, "name": "mouse_(animal_rodent)"},
        {"id": 4, "name": "hot-air_balloon"},
    ],
}


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(path)


def lvis_root(root: Path, name: str = "lvis_v1_val.json", **change: Any) -> Path:
    for split, number in (("train2017", 9), ("val2017", 4)):
        picture(root / "coco" / split / f"{number:012}.jpg")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(LVIS | change))
    return root


def test_examples() -> None:
    assert doctest.testmod(lvis).failed == 0


def test_names_keep_their_sense_only_where_they_need_it() -> None:
    assert readable_names({1: "fish", 2: "fish_(food)", 3: "flip-flop_(sandal)", "a": "bread-bin"}) == {
        1: "fish",
        2: "fish (food)",
        3: "flip-flop",
        "a": "bread-bin",
    }
    assert readable_names({1: "monitor_(computer_equipment) computer_monitor"}) == {1: "monitor"}


def test_one_sample_an_image_and_category(tmp_path: Path) -> None:
    data = LvisDataset(lvis_root(tmp_path))
    samples = list(data)
    assert [s.prompt.text for s in samples] == ["mouse (computer equipment)", "car"]
    assert [s.sample_id for s in samples] == ["9:2", "9:1"] and data.image_ids() == ["9", "9"]
    assert [s.targets for s in samples] == [(0, 2), (1,)]
    assert samples[0].image == tmp_path / "coco/train2017/000000000009.jpg"
    assert samples[0].gt_pool.shape == (3, 8, 10) and samples[0].ignore is None


def test_what_is_surely_not_there(tmp_path: Path) -> None:
    data = LvisDataset(lvis_root(tmp_path), no_target=True)
    samples = list(data)
    assert [(s.sample_id, s.prompt.text, s.targets) for s in samples] == [
        ("9:2", "mouse (computer equipment)", (0, 2)),
        ("9:1", "car", (1,)),
        ("9:3", "mouse (animal rodent)", ()),
        ("9:4", "hot-air balloon", ()),  # 77 has no name, so it is not asked for
        ("4:1", "car", ()),
    ]
    assert not samples[2].target_mask.any() and len(samples[2].gt_pool) == 3
    assert samples[4].gt_pool.shape == (0, 8, 10) and samples[4].target_mask.shape == (8, 10)


def test_without_categories_that_were_not_drawn_to_the_end(tmp_path: Path) -> None:
    assert [s.sample_id for s in LvisDataset(lvis_root(tmp_path), exhaustive=True)] == ["9:1"]


def test_a_category_that_is_there_is_not_asked_for_as_absent(tmp_path: Path) -> None:
    image = LVIS["images"][0] | {"neg_category_ids": [1]}
    data = LvisDataset(lvis_root(tmp_path, images=[image]), no_target=True)
    assert [(s.sample_id, s.targets) for s in data] == [("9:2", (0, 2)), ("9:1", (1,))]


def test_version_and_layout(tmp_path: Path) -> None:
    image = LVIS["images"][0] | {"file_name": "COCO_val2014_000000000009.jpg"}
    root = lvis_root(tmp_path, "annotations/lvis_v0.5_val.json", images=[image])
    assert LvisDataset(root, version="v0.5")[0].image == root / "coco/train2017/000000000009.jpg"
    with pytest.raises(FileNotFoundError, match=r"no LVIS file of val in .*lvis_v1_val\.json.*lvisdataset\.org"):
        LvisDataset(root)


@pytest.mark.parametrize("listed", [5, "text", {"a": 1}])
def test_lists_that_are_none(tmp_path: Path, listed: Any) -> None:
    root = lvis_root(tmp_path, images=[LVIS["images"][0] | {"neg_category_ids": listed}])
    with pytest.raises(ValueError, match=r"image 9 in .*lvis_v1_val.json: neg_category_ids is"):
        LvisDataset(root)


def test_the_official_sample(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "lvis_val_100"
    (tmp_path / "lvis_v0.5_val.json").symlink_to(source / "lvis_val_100.json")
    folder = tmp_path / "val2017"
    folder.mkdir()
    for path in json.loads((source / "images_available.json").read_text()).values():
        if (shared_data / path).is_file():
            (folder / Path(path).name).symlink_to(shared_data / path)
    data = LvisDataset(tmp_path, version="v0.5")
    file = json.loads((source / "lvis_val_100.json").read_text())
    has = defaultdict(set)
    for annotation in file["annotations"]:
        has[annotation["image_id"]].add(annotation["category_id"])
    assert len(data) == sum(len(found) for found in has.values()) == 299
    assert len(LvisDataset(tmp_path, version="v0.5", no_target=True)) == 299 + 942
    report = check(data)
    readable = [n for n, image in enumerate(data.image_ids()) if (folder / f"{int(image):012}.jpg").exists()]
    assert report.problems.total() == 299 - len(readable) == report.problems["image missing"]
    assert readable and all("_" not in data[n].prompt.text for n in readable)
    names = list(data.names.values())
    assert len(set(names)) == 1230 and "bow (weapon)" in names and "bus" in names


BOXES: list[dict[str, Any]] = [
    {"id": 1, "image_id": 11, "bbox": [1, 2, 3, 4], "category_id": 5, "instance_id": "a"},
    {"id": 2, "image_id": 11, "bbox": [0, 0, 10, 8], "instance_id": "b"},
    {"id": 3, "image_id": 12, "bbox": [7.4, 5.6, 9.0, 0.2], "category_id": 5},
    {"id": 4, "image_id": 12, "bbox": [0, 0, 1, 1], "category_id": 400},
    {"id": 5, "image_id": 13, "bbox": [0, 0, 1, 1], "category_id": 6},
]
NAMES = [{"id": 5, "name": "teapot"}, {"id": 6, "name": "speaker (stereo equipment)"}]


def ego_root(root: Path, part: str = "eval", annotations: Any = BOXES, names: Any = NAMES) -> Path:
    images = [
        {"id": key, "url": f"some/where/F_{key}.jpg", "height": 8, "width": 10, "subset": subset, "group_id": "F"}
        for key, subset in ((11, "val"), (12, "test"), (13, "val"))
    ]
    for image in images:
        picture(root / "images" / f"F_{image['id']}.jpg")
    data = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "kettle"}]}
    (root / f"EgoObjectsV1_unified_{part}.json").write_text(json.dumps(data))
    if names is not None:
        (root / "EgoObjectsV1_unified_metadata.json").write_text(json.dumps({"cat_det_cats": names}))
    return root


def test_boxes_are_filled(tmp_path: Path) -> None:
    data = EgoObjectsDataset(ego_root(tmp_path), "eval")
    samples = list(data)
    assert [s.prompt.text for s in samples] == ["teapot", "teapot", "speaker (stereo equipment)"]
    assert [s.sample_id for s in samples] == ["11:5", "12:5", "13:6"]
    first = samples[0]
    assert first.image == tmp_path / "images" / "F_11.jpg"
    # Without a category, and with one that the metadata does not list: in the pool, but not asked for.
    assert first.gt_pool.shape == (2, 8, 10) and first.targets == (0,) and samples[1].targets == (0,)
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[2:6, 1:4] = True
    assert torch.equal(first.target_mask, expected) and first.gt_pool[1].all()
    assert samples[1].target_mask.nonzero().tolist() == [[6, 7], [6, 8], [6, 9]]  # cut at the edge, one row at least


def test_val_and_test_are_in_one_file(tmp_path: Path) -> None:
    root = ego_root(tmp_path)
    assert [s.sample_id for s in EgoObjectsDataset(root, "val")] == ["11:5", "13:6"]
    assert [s.sample_id for s in EgoObjectsDataset(root, "test")] == ["12:5"]
    with pytest.raises(FileNotFoundError, match=r"EgoObjectsV1_unified_train\.json"):
        EgoObjectsDataset(root, "train")


def test_names_without_metadata_are_the_files_own(tmp_path: Path) -> None:
    data = EgoObjectsDataset(ego_root(tmp_path, "train", names=None), "train")
    assert [s.prompt.text for s in data] == ["kettle", "kettle"]
    # Metadata that arrives later counts at once, although what is asked was kept.
    ego_root(tmp_path, "train")
    assert len(EgoObjectsDataset(tmp_path, "train")) == 3


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1, 2, 0, 4], [1, 2, "x", 4], [20, 2, 3, 4], "box"])
def test_boxes_that_are_none(tmp_path: Path, box: Any) -> None:
    data = EgoObjectsDataset(ego_root(tmp_path, annotations=[BOXES[0] | {"bbox": box}]), "val")
    with pytest.raises(ValueError, match=r"image 11 in .*unified_eval.json: annotation 1 has the box"):
        data[0]


def test_box_edges() -> None:
    assert filled_box({"bbox": [-3, -3, 5, 100]}, (8, 10)) == (0, 0, 2, 8)
    assert filled_box({"bbox": [9.9, 7.9, 0.1, 0.1]}, (20, 30)) == (10, 8, 11, 9)


@pytest.mark.parametrize("names", [5, [1], [{"name": "a"}], [{"id": [5]}]])
def test_metadata_that_is_none(tmp_path: Path, names: Any) -> None:
    with pytest.raises(ValueError, match=r"unified_metadata\.json has no list cat_det_cats"):
        EgoObjectsDataset(ego_root(tmp_path, names=names))
