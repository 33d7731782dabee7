"""ReasonSeg, LLM-Seg40K, MUSE and EarthReason: tiny files in the published form, and the real ReasonSeg sample."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data.earthreason import EarthReasonDataset
from maskselect.data.llm_seg40k import LlmSeg40kDataset
from maskselect.data.muse import MuseDataset
from maskselect.data.reasonseg import ReasonSegDataset, paint
from maskselect.ops import rle


def _picture(path: Path, size: tuple[int, int] = (10, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)


def _square(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def _mask(rows: slice, columns: slice, size: tuple[int, int] = (10, 12)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return mask


# --- ReasonSeg -----------------------------------------------------------------------------------------------------


def reasonseg_files(folder: Path, split: str = "val", **changes: Any) -> Path:
    record = {
        "text": ["what holds tea?", "a vessel"],
        "is_sentence": True,
        "shapes": [
            {"label": "target", "points": _square(1.9, 1.9, 4.9, 4.9)},
            {"label": "target", "points": _square(0, 0, 8, 8)},
            {"label": "ignore_this", "points": _square(6, 6, 8, 8)},
            {"label": "flag", "points": [[0, 0], [1, 1]]},
        ],
    } | changes
    _picture(folder / split / "a.jpg")
    (folder / split / "a.json").write_text(json.dumps(record))
    return folder


def test_reasonseg_paints_small_over_large(tmp_path: Path) -> None:
    sample = ReasonSegDataset(reasonseg_files(tmp_path), "val")[0]
    assert sample.prompt.text == "what holds tea?" and sample.kind == "sentence" and sample.sample_id == "a:0"
    small, ignored = _mask(slice(1, 5), slice(1, 5)), _mask(slice(6, 9), slice(6, 9))
    large = _mask(slice(0, 9), slice(0, 9)) & ~small & ~ignored
    assert sample.ignore is not None and np.array_equal(sample.ignore.numpy(), ignored)
    assert np.array_equal(sample.gt_pool.numpy(), np.stack([large, small]))
    assert np.array_equal(sample.target_mask.numpy(), large | small)


def _official_mask(shapes: list[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """1 for target and 255 for ignored pixels, by the rule of dvlab-research/LISA at commit 6f95195,
    utils/data_processing.py, `get_mask_from_json`: areas of outline and filling together, `np.argsort` of them
    reversed, then every shape drawn over the ones before. The sort is a stable one here, as numpy's default is for few
    shapes on most machines; for others its order of equal values is not defined.
    """
    painted = [shape for shape in shapes if shape["label"].lower() != "flag"]

    def draw(canvas: np.ndarray, shape: dict[str, Any], value: int) -> np.ndarray:
        corners = np.array([shape["points"]], dtype=np.int32)
        cv2.polylines(canvas, corners, True, value, 1)
        cv2.fillPoly(canvas, corners, value)
        return canvas

    areas = [draw(np.zeros(size, np.uint8), shape, 1).sum() for shape in painted]
    mask = np.zeros(size, np.uint8)
    for place in np.argsort(areas, kind="stable")[::-1]:
        draw(mask, painted[place], 255 if "ignore" in painted[place]["label"].lower() else 1)
    return mask


def test_of_two_equal_shapes_the_earlier_one_lies_on_top(tmp_path: Path) -> None:
    shapes = [
        {"label": "target", "points": _square(0, 0, 4, 4)},
        {"label": "ignore", "points": _square(2, 2, 6, 6)},
    ]
    sample = ReasonSegDataset(reasonseg_files(tmp_path, shapes=shapes), "val")[0]
    target = _mask(slice(0, 5), slice(0, 5))
    assert sample.ignore is not None and np.array_equal(sample.target_mask.numpy(), target)
    assert np.array_equal(sample.ignore.numpy(), _mask(slice(2, 7), slice(2, 7)) & ~target)


def test_masks_are_the_official_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    labels = ["target", "target", "ignore_it", "Flag"]
    for _ in range(200):
        sides = rng.integers(1, 5, 2)
        shapes = []
        for _ in range(rng.integers(1, 7)):
            x, y = rng.integers(-1, 10, 2) + rng.choice([0.0, 0.6])
            wide, high = sides if rng.random() < 0.6 else rng.integers(1, 7, 2)
            points = _square(x, y, x + wide, y + high)
            shapes.append({"label": str(rng.choice(labels)), "points": points if rng.random() < 0.8 else points[:3]})
        sample = ReasonSegDataset(reasonseg_files(tmp_path, shapes=shapes), "val")[0]
        expected = _official_mask(shapes, (10, 12))
        ignored = np.zeros((10, 12), bool) if sample.ignore is None else sample.ignore.numpy()
        assert np.array_equal(sample.target_mask.numpy(), expected == 1) and np.array_equal(ignored, expected == 255)


def test_reasonseg_asks_paraphrases_in_training(tmp_path: Path) -> None:
    root = reasonseg_files(tmp_path, "train")
    assert [s.prompt.text for s in ReasonSegDataset(root, "train")] == ["what holds tea?", "a vessel"]


def test_a_shape_that_was_painted_over_is_no_mask() -> None:
    square = np.array(_square(1, 1, 3, 3))
    masks, ignore = paint([("target", square), ("target", square)], (6, 6))
    assert masks.shape == (1, 6, 6) and masks.sum() == 9 and not ignore.any()
    assert paint([], (6, 6))[0].shape == (0, 6, 6)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"text": []}, r"a\.json has the text"),
        ({"text": [3]}, r"a\.json has the text"),
        ({"shapes": None}, r"a\.json has no list of shapes"),
        ({"shapes": [{"label": "target"}]}, r"a\.json, shape 0"),
        ({"shapes": [{"label": "target", "points": [[1, 2, 3]]}]}, r"shape 0 has points of shape \(1, 3\)"),
        ({"shapes": [{"label": "target", "points": [[1e30, 0], [0, 1]]}]}, "shape 0"),
    ],
)
def test_reasonseg_damage(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    data = ReasonSegDataset(reasonseg_files(tmp_path, **changes), "val")
    with pytest.raises(ValueError, match=told):
        data[0]


def test_reasonseg_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="looked for val or ReasonSeg/val"):
        ReasonSegDataset(tmp_path, "val")
    reasonseg_files(tmp_path)
    (tmp_path / "val" / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"the picture of .*a\.json is missing"):
        ReasonSegDataset(tmp_path, "val")[0]


def test_real_reasonseg(shared_data: Path) -> None:
    data = ReasonSegDataset(shared_data / "reasonseg_sample", "val")
    assert len(data) == 1
    sample = data[0]
    assert sample.prompt.text == "the places where the driver can observe the speed" and sample.kind == "phrase"
    assert len(sample.targets) == 2 and sample.ignore is not None and sample.ignore.any()
    assert not (sample.ignore & sample.target_mask).any()


# --- LLM-Seg40K ----------------------------------------------------------------------------------------------------


def _llm_seg(folder: Path, **changes: Any) -> Path:
    codes = rle.encode(np.stack([_mask(slice(0, 3), slice(0, 3)), _mask(slice(5, 9), slice(2, 4))]))
    _picture(folder / "coco/train2017/a.jpg")
    _picture(folder / "egoobjects/images/b.jpg")
    Image.fromarray(_mask(slice(1, 2), slice(1, 4)).astype(np.uint8) * 255).save(folder / "b_mask.png")
    pairs = [{"question": f"q{n} ", "answer": "cup", "rle_seg": code} for n, code in enumerate(codes)]
    png = {"question": "q", "answer": "cup", "rle_seg": None, "segmentation_path": "b_mask.png"} | changes
    data = {
        "a.jpg": {"from_dataset": "coco", "qa_pairs": pairs},
        "b.jpg": {"from_dataset": "ego_objects", "qa_pairs": [png]},
    }
    (folder / "validation.json").write_text(json.dumps(data))
    return folder


def test_llm_seg40k(tmp_path: Path) -> None:
    data = LlmSeg40kDataset(_llm_seg(tmp_path), "val")
    assert [s.sample_id for s in data] == ["a.jpg:0", "a.jpg:1", "b.jpg:0"]
    assert data.image_ids() == ["a.jpg", "a.jpg", "b.jpg"]
    second = data[1]
    assert second.prompt.text == "q1" and second.targets == (1,) and len(second.gt_pool) == 2
    assert np.array_equal(second.target_mask.numpy(), _mask(slice(5, 9), slice(2, 4)))
    assert int(data[2].target_mask.sum()) == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"segmentation_path": "../x.png"}, "leads out"),
        ({"rle_seg": {"size": [4, 4], "counts": [16]}}, r"of size \[4, 4\], the image of \[10, 12\]"),
        ({"question": " "}, "empty"),
    ],
)
def test_llm_seg40k_damage(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    data = LlmSeg40kDataset(_llm_seg(tmp_path, **changes), "validation")
    with pytest.raises(ValueError, match=rf"image 'b\.jpg': .*{told}"):
        data[2]


def test_llm_seg40k_without_its_mask(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.png does not exist"):
        LlmSeg40kDataset(_llm_seg(tmp_path, segmentation_path="x.png"), "validation")[2]


def test_llm_seg40k_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"looked for test\.json"):
        LlmSeg40kDataset(tmp_path, "test")
    (tmp_path / "test.json").write_text('{"a.jpg": {"from_dataset": "coco"}}')
    with pytest.raises(ValueError, match=r"image 'a\.jpg' has no list qa_pairs"):
        LlmSeg40kDataset(tmp_path, "test")


# --- MUSE ----------------------------------------------------------------------------------------------------------


def muse_files(folder: Path, **changes: Any) -> Path:
    def box(number: int, x: int) -> dict[str, Any]:
        return {"id": number, "segmentation": [[x, 0, x + 3, 0, x + 3, 3, x, 3]], "category_name": "cup"}

    record = {
        "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg",
        "height": 10,
        "width": 12,
        "questions": ["which cups?", "and this?", "counts differ"],
        "answers": [[box(1, 0), box(2, 4)], [box(2, 4)], [box(1, 0)]],
        "text_answers": ["{seg} and {seg}", None, "{seg} {seg}"],
    } | changes
    _picture(folder / "coco/train2017/000000000009.jpg")
    (folder / "muse_val.json").write_text(json.dumps([record]))
    return folder


def test_muse(tmp_path: Path) -> None:
    data = MuseDataset(muse_files(tmp_path), "val")
    assert len(data) == 2 and data.dropped == 1
    assert [s.targets for s in data] == [(0, 1), (1,)] and data.image_ids() == ["000000000009.jpg"] * 2
    assert data[0].gt_pool.shape == (2, 10, 12) and int(data[1].target_mask.sum()) == 9
    assert data[0].prompt.text == "which cups?" and torch.equal(data[0].gt_pool[1], data[1].target_mask)


def test_muse_on_train2014(tmp_path: Path) -> None:
    _picture(tmp_path / "coco/train2014/COCO_train2014_000000000009.jpg")
    data = MuseDataset(muse_files(tmp_path, file_name="train2014/COCO_train2014_000000000009.jpg"), "val")
    assert str(data[0].image).endswith("coco/train2014/COCO_train2014_000000000009.jpg")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"answers": [[]]}, "as many answers as questions"),
        ({"answers": [[5], [], []]}, "not a list of annotations"),
        ({"height": -3}, "record 0: .*height and width"),
    ],
)
def test_muse_damage(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        list(MuseDataset(muse_files(tmp_path, **changes), "val"))


# --- EarthReason ---------------------------------------------------------------------------------------------------


def _earth(folder: Path) -> Path:
    for name, rows, answer in (("a", slice(2, 4), ["there"]), ("b", slice(0, 0), [])):
        _picture(folder / f"val/images/{name}.jpg")
        label = _mask(rows, slice(0, 5)).astype(np.uint8) * 255
        (folder / "val/labels").mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(folder / f"val/labels/{name}.png")
        (folder / "val/QAs").mkdir(parents=True, exist_ok=True)
        (folder / f"val/QAs/{name}.json").write_text(json.dumps({"questions": ["where?", "what?"], "answer": answer}))
    return folder


def test_earthreason(tmp_path: Path) -> None:
    data = EarthReasonDataset(_earth(tmp_path), "val")
    assert [s.targets for s in data] == [(0,), ()] and data.image_ids() == ["a", "b"]
    assert int(data[0].target_mask.sum()) == 10 and data[0].prompt.text == "where?"


def test_earthreason_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="looked for val"):
        EarthReasonDataset(tmp_path, "val")
    _earth(tmp_path)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "val/labels/a.png")
    with pytest.raises(ValueError, match=r"a\.png is of size \[3, 3\], its image of \[10, 12\]"):
        EarthReasonDataset(tmp_path, "val")[0]
    (tmp_path / "val/labels/a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"a\.png is not an image"):
        EarthReasonDataset(tmp_path, "val")[0]
    (tmp_path / "val/QAs/a.json").unlink()
    with pytest.raises(ValueError, match="2 images, 2 labels and 1 question files"):
        EarthReasonDataset(tmp_path, "val")
