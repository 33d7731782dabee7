"""COCO panoptic and Pix2Cap-COCO, on tiny files in the published form and on the real samples."""

import doctest
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data import panoptic
from maskselect.data.check import check
from maskselect.data.panoptic import PanopticDataset, Pix2CapDataset, read_ids, readable
from maskselect.ops import rle

CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 18, "name": "dog", "isthing": 1},
    {"id": 187, "name": "sky-other-merged", "isthing": 0},
    {"id": 171, "name": "wall-brick", "isthing": 0},
]
SKY, DOG, MAN, CROWD = 3 + 256 * 2, 65536 * 7, 200, 255 + 256 * 255 + 65536 * 255
"""Ids that need each of the three channels."""


def ids_map() -> np.ndarray:
    """Eight rows of ten: sky in two, a dog of four pixels, a person of six, a crowd of three; the rest is void."""
    ids = np.zeros((8, 10), np.int64)
    ids[:2] = SKY
    ids[4:6, 0:2] = DOG
    ids[4:6, 3:6] = MAN
    ids[7, 7:] = CROWD
    return ids


def segment(key: int, category: int, **more: Any) -> dict[str, Any]:
    return {"id": key, "category_id": category, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1], **more}


SEGMENTS = [segment(CROWD, 1, iscrowd=1), segment(SKY, 187), segment(DOG, 18), segment(MAN, 1)]


def root_of(root: Path, segments: Any = None, name: str = "panoptic_val2017.json", **change: Any) -> Path:
    """Two images: one as `ids_map` tells, one with a brick wall alone."""
    for folder in ("annotations/panoptic_val2017", "val2017", "panoptic_train2017", "train2017"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    wall = np.full((8, 10), 5, np.int64)
    for number, ids in ((6, ids_map()), (4, wall)):
        channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        for maps, images in (("annotations/panoptic_val2017", "val2017"), ("panoptic_train2017", "train2017")):
            Image.fromarray(channels).save(root / maps / f"{number:012}.png")
            Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(root / images / f"{number:012}.jpg")
    data = {
        "images": [{"id": n, "file_name": f"{n:012}.jpg", "height": 8, "width": 10} for n in (4, 6)],
        "annotations": [
            {"image_id": 6, "file_name": f"{6:012}.png", "segments_info": SEGMENTS if segments is None else segments},
            {"image_id": 4, "file_name": f"{4:012}.png", "segments_info": [segment(5, 171, description="bricks")]},
        ],
        "categories": CATEGORIES,
    }
    (root / "annotations" / name).write_text(json.dumps(data | change))
    return root


def test_examples() -> None:
    assert doctest.testmod(panoptic).failed == 0
    assert readable("floor-other-merged") == "floor" and readable("floor-wood") == "wood floor"


def test_one_sample_an_image_and_category_things_and_stuff(tmp_path: Path) -> None:
    data = PanopticDataset(root_of(tmp_path))
    samples = list(data)
    assert [(s.sample_id, s.prompt.text, s.targets) for s in samples] == [
        ("6:187", "sky", (0,)),
        ("6:18", "dog", (1,)),
        ("6:1", "person", (2,)),
        ("4:171", "brick wall", (0,)),
    ]
    assert data.image_ids() == [s.image_id for s in samples] == ["6", "6", "6", "4"]
    assert [int(mask.sum()) for mask in samples[0].gt_pool] == [20, 4, 6]  # the crowd is not in the pool
    assert samples[1].target_mask.nonzero().tolist() == [[4, 0], [4, 1], [5, 0], [5, 1]]
    assert samples[0].image == tmp_path / "val2017" / "000000000006.jpg"
    assert {s.kind for s in samples} == {"category"}


def test_void_and_crowds_of_the_category_are_not_counted(tmp_path: Path) -> None:
    sky, dog, person, wall = PanopticDataset(root_of(tmp_path))
    void = torch.from_numpy(ids_map() == 0)
    assert dog.ignore is not None and torch.equal(dog.ignore, void) and int(void.sum()) == 80 - 20 - 4 - 6 - 3
    assert sky.ignore is not None and torch.equal(sky.ignore, void)
    assert person.ignore is not None and torch.equal(person.ignore, void | torch.from_numpy(ids_map() == CROWD))
    assert wall.ignore is not None and not wall.ignore.any()


def test_two_segments_of_one_category(tmp_path: Path) -> None:
    segments = [segment(SKY, 187), segment(DOG, 18), segment(MAN, 18), segment(CROWD, 18)]
    sample = PanopticDataset(root_of(tmp_path, segments))[1]
    assert sample.targets == (1, 2, 3) and int(sample.target_mask.sum()) == 13


def test_a_copy_for_a_worker_is_small(tmp_path: Path) -> None:
    data = PanopticDataset(root_of(tmp_path), "val")
    assert data[0].gt_pool.any() and len(pickle.dumps(data)) < 4000
    assert pickle.loads(pickle.dumps(data))[3].prompt.text == "brick wall"


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        ([segment(SKY, 99)], f"annotation {SKY} has the category 99"),
        ([segment(0, 1)], "segment with the id 0"),
        ([segment(2**24, 1)], "segment with the id 16777216"),
        ([segment("5", 1)], "segment with the id 5"),  # type: ignore[arg-type]
        ([segment(7, 1), segment(7, 18)], "segment number 0 and segment number 1 have the same id 7"),
        ([5], "no list segments_info"),
        ("text", "no list segments_info"),
    ],
)
def test_segments_that_contradict_themselves(tmp_path: Path, segments: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"image 6 in .*panoptic_val2017\.json: .*{told}"):
        PanopticDataset(root_of(tmp_path, segments))


def test_maps_that_cannot_be_used(tmp_path: Path) -> None:
    data = PanopticDataset(root_of(tmp_path))
    path = tmp_path / "annotations/panoptic_val2017/000000000006.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    with pytest.raises(ValueError, match=r"image 6 in .*\.json: map .*000000000006\.png is truncated"):
        data[0]
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"map .* is of mode L; expected RGB"):
        data[0]
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"its map is of size \[4, 4\], the image of \[8, 10\]"):
        data[0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"000000000006\.png"):
        data[0]
    assert data[3].prompt.text == "brick wall"


def test_a_map_with_more_than_its_list(tmp_path: Path) -> None:
    data = PanopticDataset(root_of(tmp_path, [segment(SKY, 187)]))
    with pytest.raises(ValueError, match=rf"image 6 in .*its map has segment {DOG}, which segments_info does not have"):
        data[0]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"annotations": []}, ValueError, r"panoptic_val2017\.json asks nothing"),
        ({"annotations": [{"file_name": "a.png"}]}, ValueError, "annotation number 0 has no field 'image_id'"),
        ({"images": []}, ValueError, "has no image with the id 6"),
    ],
)
def test_files_without_what_they_need(tmp_path: Path, change: Any, error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        PanopticDataset(root_of(tmp_path, **change))[0]


def test_maps_do_not_lead_out(tmp_path: Path) -> None:
    annotation = {"image_id": 6, "file_name": "../../secret.png", "segments_info": SEGMENTS}
    with pytest.raises(ValueError, match=r"image 6 in .*leads out"):
        PanopticDataset(root_of(tmp_path, annotations=[annotation]))[0]


def test_missing_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations/panoptic_val2017\.json .*cocodataset\.org"):
        PanopticDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"annotations/pix2cap_coco_train\.json .*geshang/Pix2Cap-COCO"):
        Pix2CapDataset(tmp_path, "train")


CAPTIONED = [
    segment(CROWD, 1, iscrowd=1, description="many people"),
    segment(SKY, 187, description=" a grey sky "),
    segment(DOG, 18, description=""),
    segment(MAN, 1),
]


def test_descriptions_are_prompts(tmp_path: Path) -> None:
    data = Pix2CapDataset(root_of(tmp_path, CAPTIONED, "pix2cap_coco_val.json"))
    assert [(s.sample_id, s.prompt.text, s.targets) for s in data] == [
        (f"6:{SKY}", "a grey sky", (0,)),
        (f"6:{DOG}", "dog", (1,)),  # an empty description, or none: the name of the category
        (f"6:{MAN}", "person", (2,)),
        ("4:5", "bricks", (0,)),
    ]
    assert {s.kind for s in data} == {""} and data[0].gt_pool.shape == (3, 8, 10)


def test_training_images_with_a_short_description_are_left_out(tmp_path: Path) -> None:
    root = root_of(tmp_path, CAPTIONED, "pix2cap_coco_train.json")
    assert [s.sample_id for s in Pix2CapDataset(root, "train")] == ["4:5"]
    whole = [{**one, "description": "long"} for one in CAPTIONED]
    assert len(Pix2CapDataset(root_of(tmp_path, whole, "pix2cap_coco_train.json"), "train")) == 4
    short = [{**whole[0], "description": "ab"}, *whole[1:]]  # of a crowd, as the published loader counts it
    assert len(Pix2CapDataset(root_of(tmp_path, short, "pix2cap_coco_train.json"), "train")) == 1


def test_a_description_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"image 6 in .*segment {SKY} has the description 5"):
        Pix2CapDataset(root_of(tmp_path, [segment(SKY, 187, description=5)], "pix2cap_coco_val.json"))


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_all_of_the_real_sample(shared_data: Path, tmp_path: Path, split: str) -> None:
    source = shared_data / "coco_panoptic_mini"
    (tmp_path / "annotations").symlink_to(source / "panoptic_segmentation/annotations")
    images = source / "images/val2017" if split == "val2017" else shared_data / "coco128/train2017"
    (tmp_path / split).symlink_to(images)
    data = PanopticDataset(tmp_path, split)
    file = json.loads((tmp_path / f"annotations/panoptic_{split}.json").read_text())
    expected = sum(len({s["category_id"] for s in a["segments_info"] if not s["iscrowd"]}) for a in file["annotations"])
    assert len(data) == expected and len(set(data.image_ids())) == 100
    report = check(data)
    assert not report.problems, report.examples
    areas = {
        str(a["image_id"]): [s["area"] for s in a["segments_info"] if not s["iscrowd"]] for a in file["annotations"]
    }
    for number, sample in enumerate(data):
        assert sample.ignore is not None and not (sample.ignore & sample.target_mask).any()
        if number == 0 or data.image_ids()[number - 1] != sample.image_id:
            pool = sample.gt_pool.numpy()
            assert [np.count_nonzero(mask) for mask in pool] == areas[sample.image_id]
            assert sum(areas[sample.image_id]) == np.count_nonzero(pool.any(axis=0))  # segments do not overlap


def test_the_official_example(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "panopticapi_sample/sample_data"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/panoptic_val2017.json").symlink_to(source / "panoptic_examples.json")
    (tmp_path / "panoptic_val2017").symlink_to(source / "panoptic_examples")
    (tmp_path / "val2017").symlink_to(source / "input_images")
    data = PanopticDataset(tmp_path)
    # The same segments as its authors converted them into run lengths.
    converted = json.loads((source / "panoptic_coco_detection_format.json").read_text())["annotations"]
    seen = {}
    for sample in data:
        seen[sample.image_id] = sample.gt_pool
    for image, pool in seen.items():
        own = [a for a in converted if str(a["image_id"]) == image and not a["iscrowd"]]
        assert np.array_equal(pool.numpy(), np.stack([rle.decode(a["segmentation"]) for a in own]))
    assert len(seen) == 2 and sum(len(pool) for pool in seen.values()) == 47  # of 50, three are crowds
    assert read_ids(tmp_path / "panoptic_val2017/000000142238.png").dtype == np.int32
