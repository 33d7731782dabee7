"""PACO-LVIS and PASCAL-Part, on tiny files in the published form."""

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data import parts
from maskselect.data.parts import PacoDataset, PascalPartDataset, phrase
from maskselect.ops import rle


def mask_of(rows: slice, columns: slice) -> dict[str, Any]:
    mask = np.zeros((1, 8, 10), bool)
    mask[0, rows, columns] = True
    return rle.encode(mask)[0]


MUG, HANDLE, OTHER, FAR = (
    mask_of(slice(0, 4), slice(0, 4)),  # 16 pixels
    mask_of(slice(0, 2), slice(3, 4)),  # 2
    mask_of(slice(4, 8), slice(4, 8)),  # 16
    mask_of(slice(0, 1), slice(8, 10)),  # 2
)
TOLD = {"unknown_color": 0, "unknown_pattern_marking": 0, "unknown_material": 0, "unknown_transparency": 0}
PACO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "train2017/000000000001.jpg", "height": 8, "width": 10}],
    "annotations": [
        {
            "id": 10,
            "image_id": 1,
            "category_id": 1,
            "obj_ann_id": 10,
            "segmentation": MUG,
            "attribute_ids": [3, 40, 45],
        },
        {"id": 11, "image_id": 1, "category_id": 7, "obj_ann_id": 10, "segmentation": HANDLE, "attribute_ids": [3]},
        {"id": 12, "image_id": 1, "category_id": 1, "obj_ann_id": 12, "segmentation": OTHER, "attribute_ids": [5]},
        {"id": 13, "image_id": 1, "category_id": 1, "obj_ann_id": 13, "segmentation": FAR, "attribute_ids": []},
    ],
    "categories": [
        {"id": 1, "name": "mug_(drinking_cup)", "supercategory": "OBJECT"},
        {"id": 7, "name": "mug_(drinking_cup):back_cover", "supercategory": "PART"},
    ],
    "part_categories": [{"id": 1, "name": "back_cover"}],
    "attributes": [
        {"id": 3, "name": "dark_red"},
        {"id": 5, "name": "blue"},
        {"id": 40, "name": "logo"},
        {"id": 45, "name": "other(material)"},
    ],
    "attr_type_to_attr_idxs": {"color": [3, 5], "pattern_marking": [40], "material": [45], "transparency": []},
}


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(path)


def paco_root(root: Path, name: str = "paco_lvis_v1_val.json", flags: Any = TOLD, **change: Any) -> Path:
    picture(root / "coco/train2017/000000000001.jpg")
    data = PACO | change
    data["annotations"] = [flags | annotation for annotation in data["annotations"]]
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(data))
    return root


def test_examples() -> None:
    assert doctest.testmod(parts).failed == 0


def test_names_of_parts() -> None:
    assert phrase("pottedplant:plant") == "the plant of the potted plant"
    assert phrase("bus:license plate") == "the license plate of the bus"
    assert phrase("dog") == phrase("dog: ") == "dog"


def test_objects_parts_and_attributes(tmp_path: Path) -> None:
    data = PacoDataset(paco_root(tmp_path))
    assert [(s.sample_id, s.kind, s.prompt.text, s.targets) for s in data] == [
        ("1:1", "category", "mug", (0, 2, 3)),
        ("1:7", "part", "the back cover of the mug", (1,)),
        ("1:1:3", "attribute", "dark red mug", (0,)),
        ("1:1:40", "attribute", "mug with a logo", (0,)),
        ("1:1:5", "attribute", "blue mug", (2,)),
        ("1:7:3", "attribute", "the dark red back cover of the mug", (1,)),
    ]
    assert data.image_ids() == ["1"] * 6
    assert data[0].image == tmp_path / "coco/train2017/000000000001.jpg"
    assert [int(mask.sum()) for mask in data[0].gt_pool] == [16, 2, 16, 2]
    assert [s.kind for s in PacoDataset(tmp_path, attributes=False)] == ["category", "part"]


def test_masks_of_unknown_attributes_are_not_counted(tmp_path: Path) -> None:
    category, part, red, logo, blue, handle = PacoDataset(paco_root(tmp_path))
    assert category.ignore is None and part.ignore is None and handle.ignore is None
    # Colours were told of the first two mugs, patterns of the first alone.
    assert red.ignore is not None and torch.equal(red.ignore, red.gt_pool[3])
    assert blue.ignore is not None and torch.equal(blue.ignore, blue.gt_pool[3])
    assert logo.ignore is not None and torch.equal(logo.ignore, logo.gt_pool[2] | logo.gt_pool[3])


def test_a_flag_makes_an_attribute_unknown(tmp_path: Path) -> None:
    annotations = [PACO["annotations"][0], PACO["annotations"][2] | {"unknown_color": 1}]
    red = PacoDataset(paco_root(tmp_path, annotations=annotations))[1]
    assert red.prompt.text == "dark red mug" and red.targets == (0,)
    assert red.ignore is not None and torch.equal(red.ignore, red.gt_pool[1])


@pytest.mark.parametrize("home", ["vlpart/paco/annotations", "paco/annotations", "annotations"])
def test_layouts(tmp_path: Path, home: str) -> None:
    assert len(PacoDataset(paco_root(tmp_path, f"{home}/paco_lvis_v1_train.json"), "train")) == 6
    # From the annotations' own folder, the images are some folders up.
    assert len(list(PacoDataset(tmp_path / home, "train"))) == 6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"attribute_ids": [99]}, "annotation 10 has the attribute 99, which has no name"),
        ({"attribute_ids": 3}, "annotation 10 has the attributes 3"),
        ({"attribute_ids": [[3]]}, "annotation 10 has the attributes"),
        ({"category_id": 2}, "annotation 10 has the category 2"),
    ],
)
def test_annotations_that_contradict_the_file(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    root = paco_root(tmp_path, annotations=[PACO["annotations"][0] | change])
    with pytest.raises(ValueError, match=f"image 1 in .*paco_lvis_v1_val.json: {told}"):
        PacoDataset(root)


def test_missing_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no PACO-LVIS file of test in .*vlpart/paco.*paco_lvis_v1\.zip"):
        PacoDataset(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match=r"no PASCAL-Part file of train in .*pascal_part_mat2json\.py"):
        PascalPartDataset(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(PACO))
    with pytest.raises(FileNotFoundError, match=r"no image folder: looked for .*JPEGImages"):
        PascalPartDataset(tmp_path)


def pascal_root(root: Path, home: str = "pascal_part") -> Path:
    picture(root / home / "VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg")
    data = {
        "images": [{"id": 2, "file_name": "2008_000002.jpg", "height": 8, "width": 10}],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 9, "segmentation": MUG, "bbox": [0, 0, 3, 3], "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 8, "segmentation": OTHER, "iscrowd": 0},
            {"id": 3, "image_id": 2, "category_id": 9, "segmentation": FAR, "iscrowd": 0},
        ],
        "categories": [{"id": 8, "name": "tvmonitor:screen"}, {"id": 9, "name": "dog:leg"}],
    }
    (root / home / "train.json").write_text(json.dumps(data))
    return root


@pytest.mark.parametrize("home", ["vlpart/pascal_part", "pascal_part", "."])
def test_pascal_parts(tmp_path: Path, home: str) -> None:
    pascal_root(tmp_path, home)
    samples = list(PascalPartDataset(tmp_path))
    assert [(s.sample_id, s.prompt.text, s.targets, s.kind) for s in samples] == [
        ("2:9", "the leg of the dog", (0, 2), "part"),
        ("2:8", "the screen of the tv monitor", (1,), "part"),
    ]
    assert int(samples[0].target_mask.sum()) == 16 + 2
    assert samples[0].image == tmp_path / home / "VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg"
