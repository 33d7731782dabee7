"""COCO instances and EntitySeg, on tiny files in the published form and on the real samples."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from maskselect.data import coco as coco_module
from maskselect.data.check import check
from maskselect.data.coco import CocoDataset, EntitySegDataset, coco_split

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]  # rows and columns 1 to 3
SMALL = [[5, 5, 7, 5, 7, 7, 5, 7]]  # rows and columns 5 and 6
LEFT = {"size": [8, 10], "counts": [0, 24, 56]}  # three columns, all rows; uncompressed, as crowds are
IMAGES = [
    {"id": 7, "file_name": "000000000007.jpg", "height": 8, "width": 10},
    {"id": 3, "file_name": "000000000003.jpg", "height": 8, "width": 10},
    {"id": 5, "file_name": "000000000005.jpg", "height": 8, "width": 10},
]
ANNOTATIONS: list[dict[str, Any]] = [
    {"id": 31, "image_id": 3, "category_id": 18, "segmentation": SQUARE, "iscrowd": 0},
    {"id": 71, "image_id": 7, "category_id": 18, "segmentation": LEFT, "iscrowd": 1},
    {"id": 72, "image_id": 7, "category_id": 18, "segmentation": SQUARE, "iscrowd": 0},
    {"id": 73, "image_id": 7, "category_id": 1, "segmentation": SMALL, "iscrowd": 0},
    {"id": 74, "image_id": 7, "category_id": 18, "segmentation": SMALL, "iscrowd": 0},
    {"id": 75, "image_id": 7, "category_id": 2, "segmentation": LEFT, "iscrowd": 1},
]
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}, {"id": 18, "name": " dog "}]


def content(**change: Any) -> dict[str, Any]:
    return {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES} | change


def write(root: Path, name: str, data: Any, images: Path | None = None) -> Path:
    """Annotations, and black pictures of 8x10 for all images in them."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(data if isinstance(data, str) else json.dumps(data))
    for image in data["images"] if images and isinstance(data, dict) else ():
        path = root / (images or "") / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(path)
    return root


def coco_root(root: Path, **change: Any) -> Path:
    return write(root, "annotations/instances_val2017.json", content(**change), Path("val2017"))


def test_one_sample_an_image_and_category(tmp_path: Path) -> None:
    data = CocoDataset(coco_root(tmp_path), "val2017")
    samples = list(data)
    assert [s.prompt.text for s in samples] == ["dog", "person", "dog"]
    assert [s.image_id for s in samples] == data.image_ids() == ["7", "7", "3"]
    assert [s.sample_id for s in samples] == ["7:18", "7:1", "3:18"]
    assert [s.targets for s in samples] == [(0, 2), (1,), (0,)]
    assert {s.kind for s in samples} == {"category"} and len(data) == 3
    first = samples[0]
    assert first.gt_pool.shape == (3, 8, 10) and first.gt_pool.dtype == torch.bool
    assert first.prompt.references.shape == (0, 8, 10)
    assert first.gt_pool[0, 1:4, 1:4].all() and int(first.target_mask.sum()) == 9 + 4
    assert first.image == tmp_path / "val2017" / "000000000007.jpg"


def test_a_crowd_is_left_out_of_the_pool_and_of_the_measure_of_its_category(tmp_path: Path) -> None:
    dog, person, _ = CocoDataset(coco_root(tmp_path), "val")
    assert dog.ignore is not None and person.ignore is None
    # Three columns of eight rows, without the six pixels that a target covers.
    assert int(dog.ignore.sum()) == 24 - 6 and not (dog.ignore & dog.target_mask).any()
    assert dog.ignore[:, 0].all() and not dog.ignore[1, 1]
    assert "bicycle" not in [s.prompt.text for s in CocoDataset(tmp_path)]  # there is only a crowd of it


@pytest.mark.parametrize("home", ["annotations", "coco/annotations", "."])
@pytest.mark.parametrize("images", ["train2017", "images/train2017", "coco/train2017", "../train2017"])
def test_layouts(tmp_path: Path, home: str, images: str) -> None:
    root = write(tmp_path / "root", f"{home}/instances_train2017.json", content(), Path(images))
    assert len(CocoDataset(root, "train")) == 3
    assert CocoDataset(str(root), "train2017")[0].image.exists()  # type: ignore[union-attr]


def test_split_names() -> None:
    assert [coco_split(s) for s in ("train", "val", "val2014")] == ["train2017", "val2017", "val2014"]


def test_a_file_without_names_finds_its_images_by_address(tmp_path: Path) -> None:
    images = [{**IMAGES[1], "coco_url": "http://images.cocodataset.org/val2017/000000000003.jpg"}]
    root = coco_root(tmp_path, images=images)
    del images[0]["file_name"]
    write(root, "annotations/instances_val2017.json", content(images=images, annotations=ANNOTATIONS[:1]))
    assert CocoDataset(root)[0].image == root / "val2017" / "000000000003.jpg"


def test_masks_of_an_image_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def counted(annotations: list[Any], size: tuple[int, int]) -> torch.Tensor:
        decoded.append(len(annotations))
        return torch.zeros(len(annotations), *size, dtype=torch.bool)

    monkeypatch.setattr(coco_module, "decode_masks", counted)
    assert len(list(CocoDataset(coco_root(tmp_path)))) == 3
    assert decoded == [5, 1]


def test_opening_again_does_not_go_through_the_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CocoDataset(coco_root(tmp_path))

    def refused(self: Any) -> Iterator[Any]:
        raise AssertionError("the questions were sorted again")

    monkeypatch.setattr(CocoDataset, "_all_tags", refused)
    assert [s.sample_id for s in CocoDataset(tmp_path)] == ["7:18", "7:1", "3:18"]
    monkeypatch.undo()
    write(tmp_path, "annotations/instances_val2017.json", content(annotations=ANNOTATIONS[:1]))
    assert [s.sample_id for s in CocoDataset(tmp_path)] == ["3:18"]  # a changed file is sorted anew


def test_workers_get_little_and_read_the_same(tmp_path: Path) -> None:
    data = CocoDataset(coco_root(tmp_path))
    assert data[0].sample_id == "7:18" and data._latest is not None
    packed = pickle.dumps(data)
    assert len(packed) < 4000 and pickle.loads(packed)._latest is None
    loader: Any = DataLoader(data, batch_size=None, num_workers=2)  # type: ignore[arg-type]
    assert [s.sample_id for s in loader] == [s.sample_id for s in data]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"category_id": 99}, "image 3 in .*instances_val2017.json: annotation 31 has the category 99; expected one"),
        ({"category_id": [1]}, r"annotation 31 has the category \[1\]"),
        ({"category_id": None}, "annotation 31 has the category None"),
        ({"image_id": [3]}, "annotation number 0"),
    ],
)
def test_annotations_that_cannot_be_sorted(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    root = coco_root(tmp_path, annotations=[{**ANNOTATIONS[0], **change}])
    with pytest.raises(ValueError, match=told):
        CocoDataset(root)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 4], "counts": [0, 16]},
        {"size": [8, 10], "counts": [0, 16]},
        {"size": [8, 10], "counts": "%%%"},
        [[1, 2, "x", 4, 5, 6]],
        "polygon",
        7,
    ],
)
def test_outlines_that_cannot_be_read_name_file_image_and_annotation(tmp_path: Path, segmentation: Any) -> None:
    data = CocoDataset(coco_root(tmp_path, annotations=[{**ANNOTATIONS[0], "segmentation": segmentation}]))
    with pytest.raises(ValueError, match=r"image 3 in .*instances_val2017.json: annotation 31: "):
        data[0]
    assert check(data).problems["annotation or image damaged"] == 1


@pytest.mark.parametrize(
    ("image", "error", "told"),
    [
        ({"height": -8}, ValueError, "image 3 in .*height and width"),
        ({"height": 10**7}, ValueError, "image 3 in .*height and width"),
        ({"file_name": "../../secret.jpg"}, ValueError, "image 3 in .*leads out"),
        ({"file_name": ""}, ValueError, "image 3 in .*not a file name"),
        ({"file_name": "absent.jpg"}, FileNotFoundError, "image 'absent.jpg' is in none of"),
    ],
)
def test_images_that_cannot_be_used(tmp_path: Path, image: dict[str, Any], error: Any, told: str) -> None:
    root = coco_root(tmp_path)
    data = content(images=[{**IMAGES[1], **image}], annotations=ANNOTATIONS[:1])
    write(root, "annotations/instances_val2017.json", data)
    with pytest.raises(error, match=told):
        CocoDataset(root)[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no COCO file of val2017 in .*looked for annotations/instances_val2017.json"
    ):
        CocoDataset(tmp_path)
    root = write(tmp_path, "annotations/instances_val2017.json", content())
    with pytest.raises(FileNotFoundError, match=r"no image folder: looked for .*cocodataset.org"):
        CocoDataset(root)
    (root / "val2017").mkdir()
    for broken in (json.dumps(content())[:-40], "[]", "{}", '{"images": 5}', '{"images": [5]}', "\0\1"):
        write(root, "annotations/instances_val2017.json", broken)
        with pytest.raises(ValueError, match=r"instances_val2017\.json"):
            CocoDataset(root)
    write(root, "annotations/instances_val2017.json", content(annotations=[]))
    with pytest.raises(ValueError, match="has no annotations: that list is empty"):
        CocoDataset(root)


def test_a_nameless_category_is_told_of(tmp_path: Path) -> None:
    root = coco_root(tmp_path, categories=[{"id": 18, "name": " "}], annotations=ANNOTATIONS[:1])
    with pytest.raises(ValueError, match=r"instances_val2017.json: category 18 has the name ' '; expected a text"):
        CocoDataset(root)


def entity_root(root: Path, **change: Any) -> Path:
    images = [{**image, "file_name": f"entity_01_11580/{image['id']}.jpg"} for image in IMAGES]
    categories = [{"id": 1, "name": "man"}, {"id": 2, "name": "utility_ot"}, {"id": 18, "name": "street_light"}]
    data = content(images=images, categories=categories, **change)
    return write(root, "annotations/entity_segmentation/entityv2_010203_entity_val.json", data, Path("images"))


def test_entities_are_asked_for_without_their_names(tmp_path: Path) -> None:
    data = EntitySegDataset(entity_root(tmp_path / "entityseg").parent)
    samples = list(data)
    assert [s.prompt.text for s in samples] == ["everything"] * 2
    assert [s.sample_id for s in samples] == [s.image_id for s in samples] == data.image_ids() == ["7", "3"]
    assert [s.targets for s in samples] == [(0, 1, 2), (0,)]
    assert samples[0].kind == "" and samples[0].gt_pool.shape == (3, 8, 10)
    assert samples[0].ignore is not None and int(samples[0].ignore.sum()) == 24 - 6
    assert str(samples[0].image).endswith("images/entity_01_11580/7.jpg")


def test_entities_of_a_missing_split(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no EntitySeg file of train in .*entityv2_010203_entity_train.json"):
        EntitySegDataset(entity_root(tmp_path), "train")


def test_all_of_coco128(shared_data: Path) -> None:
    data = CocoDataset(shared_data / "coco128", "train2017")
    file = json.loads((shared_data / "coco128/annotations/instances_train2017.json").read_text())
    things = {(a["image_id"], a["category_id"]) for a in file["annotations"] if not a["iscrowd"]}
    assert len(data) == len(things) and len(set(data.image_ids())) == len({image for image, _ in things})
    report = check(data)
    assert not report.problems, report.examples
    assert report.targets == sum(not a["iscrowd"] for a in file["annotations"]) == 929
    # The published areas are those of the polygons, so pixels differ a little.
    sample = data[0]
    found = [a["area"] for a in file["annotations"] if str(a["image_id"]) == sample.image_id and not a["iscrowd"]]
    assert torch.allclose(sample.gt_pool.sum(dim=(1, 2)).float(), torch.tensor(found), rtol=0.05, atol=30)
    ignored = [s for s in data if s.ignore is not None]
    assert 0 < len(ignored) <= 10 and all(not (s.ignore & s.target_mask).any() for s in ignored)


def test_the_official_test_vectors(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "cocoapi_testvectors"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2014.json").symlink_to(source / "instances_val2014_100.json")
    (tmp_path / "val2014").mkdir()
    there = 0
    for name, path in json.loads((source / "images_available.json").read_text()).items():
        if (shared_data / str(path)).is_file():
            (tmp_path / "val2014" / name).symlink_to(shared_data / path)
            there += 1
    data = CocoDataset(tmp_path, "val2014")
    read = 0
    for number in range(len(data)):
        try:
            sample = data[number]
        except FileNotFoundError:
            continue
        read += 1
        assert sample.targets and sample.target_mask.any()
    assert there > 0 and read > there
