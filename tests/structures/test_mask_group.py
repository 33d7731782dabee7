"""What a user does with an answer: look at it, save it, and hand it to other tools."""

import builtins
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from maskselect.ops import rle
from maskselect.structures.prediction import MaskGroup
from tests.structures.test_values import group, masks


def rings() -> np.ndarray:
    """A ring with an island in its hole, single pixels, a line, and nothing, (4, 12, 16) bool."""
    own = np.zeros((4, 12, 16), bool)
    own[0, 1:11, 1:11] = True
    own[0, 3:9, 3:9] = False
    own[0, 5:7, 5:7] = True
    own[1, [0, 11, 5], [0, 15, 8]] = True
    own[2, 4, 2:9] = True
    return own


def test_repr_is_short() -> None:
    assert repr(group()) == "MaskGroup('the mugs', 3 masks of (12, 16), scores [0.9, 0.75, 0.6])"
    assert repr(group(0)) == "MaskGroup('the mugs', 0 masks of (12, 16), scores [])"
    assert len(repr(group(60))) < 120


def test_areas_and_size() -> None:
    assert group().areas.tolist() == masks().sum((1, 2)).tolist() and group(0).areas.shape == (0,)
    assert group().size == (12, 16)


@pytest.mark.parametrize("own", [rings(), masks(6, (12, 16), seed=3)])
def test_polygons_filled_together_are_the_mask(own: np.ndarray) -> None:
    found = group(len(own), masks=own).polygons
    assert len(found) == len(own)
    for mask, polygons in zip(own, found, strict=True):
        canvas = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(canvas, polygons, 1)
        assert np.array_equal(canvas.astype(bool), mask)


def test_polygons_of_holes() -> None:
    ring, dots, line, nothing = group(4, masks=rings()).polygons
    assert len(ring) == 3 and len(dots) == 3 and len(line) == 1 and nothing == []
    alone = np.zeros((12, 16), np.uint8)
    for polygon in ring:
        cv2.fillPoly(alone, [polygon], 1)
    assert alone.sum() == 100  # each filled alone: no hole is left
    assert sorted(map(tuple, line[0].tolist())) == [(2, 4), (8, 4)]
    assert sorted(map(tuple, np.concatenate(dots).tolist())) == [(0, 0), (8, 5), (15, 11)]


def annotations() -> COCO:
    coco = COCO()
    coco.dataset = {"images": [{"id": 7, "height": 12, "width": 16}], "annotations": [], "info": {}}
    coco.dataset["categories"] = [{"id": 3, "name": "mug"}]
    coco.createIndex()
    return coco


def test_coco_reads_the_results() -> None:
    found = annotations().loadRes(group().to_coco(image_id=7, category_id=3))
    assert found.getImgIds() == [7] and found.getCatIds() == [3]
    for record, mask, score in zip(found.loadAnns(found.getAnnIds(imgIds=7)), masks(), group().scores, strict=True):
        assert np.array_equal(found.annToMask(record).astype(bool), mask)
        assert record["score"] == pytest.approx(score)
    assert "image_id" not in group().to_coco()[0] and group(0).to_coco(7, 3) == []


def test_save_by_suffix(tmp_path: Path) -> None:
    found = group()
    found.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), found.mask * np.uint8(255))
    found.save(str(tmp_path / "a.json"))
    record = json.loads((tmp_path / "a.json").read_text())
    assert list(record) == [
        "image", "size", "prompt", "model", "threshold", "no_target", "candidates", "masks",
    ]  # fmt: skip
    assert record["size"] == [12, 16] and record["image"] is None and not record["no_target"]
    assert np.array_equal(np.stack([rle.decode(one["segmentation"]) for one in record["masks"]]), masks())
    with pytest.raises(ValueError, match=r"'\.jpg'; expected \.png .*or \.json"):
        found.save(tmp_path / "a.jpg")
    assert len(list(tmp_path.iterdir())) == 2


def test_overlay_and_notebooks(tmp_path: Path) -> None:
    found = group(prompt="left of <mask-ref>")
    drawn = found.overlay(tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(drawn))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found._repr_png_()))), np.asarray(drawn))


def test_placeholders_are_numbered_as_the_labels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr("maskselect.structures.prediction.draw_overlay", lambda *those: given.append(those))
    group(prompt="left of <mask-ref>, near <mask-ref>").overlay()
    group(0).overlay()
    assert given[0][4:] == ("left of <ref1>, near <ref2>", "3 of 9 candidates, threshold 0.50")
    assert given[1][5] == "nothing in the image answers this (9 candidates, threshold 0.50)"


@pytest.mark.parametrize("count", [0, 3])
def test_supervision_draws_the_detections(count: int) -> None:
    supervision = pytest.importorskip("supervision")
    found = group(count)
    detections = found.to_supervision()
    assert len(detections) == count and np.array_equal(detections.mask, found.masks)
    assert np.array_equal(detections.xyxy, found.boxes) and np.array_equal(detections.confidence, found.scores)
    assert list(detections["class_name"]) == ["the mugs"] * count
    drawn = supervision.MaskAnnotator().annotate(found.image.copy(), detections)
    assert drawn.any() == bool(count)


def test_without_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fails(name: str, *rest: Any) -> Any:
        if name == "supervision":
            raise ModuleNotFoundError("No module named 'supervision'", name="supervision")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fails)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'maskselect\[supervision\]'"):
        group().to_supervision()


def test_groups_are_values() -> None:
    assert isinstance(group(), MaskGroup) and group() == group() and len({group(), group()}) == 1
