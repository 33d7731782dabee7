"""What a user does with an answer: look at it, save it, and hand it to other tools."""

import builtins
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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


def test_coco_reads_polygons() -> None:
    own = rings()[:3]
    records = group(3, masks=own).to_coco(7, 3, polygons=True)
    assert [len(record["segmentation"]) for record in records] == [2, 3, 1]  # parts; the hole is in the first
    found = annotations().loadRes(records)
    for record, mask in zip(found.loadAnns(found.getAnnIds(imgIds=7)), own, strict=True):
        assert np.array_equal(found.annToMask(record).astype(bool), mask)


def test_classes_of_masks() -> None:
    found = group(3, labels=("mug", "plate", "mug"))
    assert found.names == ("mug", "plate", "mug") and found.categories == ("mug", "plate")
    assert group(2, prompt="left of <mask-ref>").names == ("left of <ref1>",) * 2
    assert group(0).categories == ("the mugs",) and group(0, labels=()).categories == ()
    assert [line[0] for line in found.to_yolo().splitlines()] == ["0", "1", "0"]
    assert [line[0] for line in found.to_yolo(["plate", "mug"]).splitlines()] == ["1", "0", "1"]
    with pytest.raises(ValueError, match="label 'mug' is not among the 1 classes"):
        found.to_yolo(["plate"])
    shapes = found.to_labelme("a.png", tolerance=0)["shapes"]
    assert {shape["label"] for shape in shapes} == {"mug", "plate"} and shapes[0]["score"] == 0.9


def even_odd(path: str, size: tuple[int, int]) -> np.ndarray:
    """The pixels inside a path of `M`, `H`, `V` and `Z`: an odd number of its rings covers them."""
    inside = np.zeros(size, bool)
    for ring in path.split("Z")[:-1]:
        x, y, corners = 0, 0, []
        for kind, numbers in re.findall(r"([MHV])([\d ]+)", ring):
            values = [int(value) for value in numbers.split()]
            x, y = values if kind == "M" else (values[0], y) if kind == "H" else (x, values[0])
            corners += [float(x), float(y)]
        inside ^= rle.decode([corners], size)
    return inside


def test_svg_is_even_odd() -> None:
    own = rings()
    root = ElementTree.fromstring(group(4, masks=own, prompt='a < "b" & <mask-ref>').to_svg())
    space = "{http://www.w3.org/2000/svg}"
    assert root.get("viewBox") == "0 0 16 12" and root.find(f"{space}g").get("fill-rule") == "evenodd"  # type: ignore[union-attr]
    paths = list(root.iter(f"{space}path"))
    assert paths[0].get("data-label") == 'a < "b" & <ref1>' and paths[0].get("data-score") == "0.9000"
    for path, mask in zip(paths, own, strict=True):
        assert np.array_equal(even_odd(path.get("d") or "", mask.shape), mask)


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
    found.save(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == found.to_svg()
    with pytest.raises(ValueError, match=r"'\.jpg'; expected \.png .*\.json or \.svg"):
        found.save(tmp_path / "a.jpg")
    assert len(list(tmp_path.iterdir())) == 3


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
@pytest.mark.parametrize("compact", [False, True])
def test_supervision_draws_the_detections(count: int, compact: bool) -> None:
    supervision = pytest.importorskip("supervision")
    if compact and not hasattr(supervision, "CompactMask"):
        pytest.skip(f"supervision {supervision.__version__} has no CompactMask")
    found = group(count)
    detections = found.to_supervision(compact)
    assert isinstance(detections.mask, np.ndarray) != compact
    assert len(detections) == count and np.array_equal(np.asarray(detections.mask), found.masks)
    assert np.array_equal(detections.xyxy, found.boxes) and np.array_equal(detections.confidence, found.scores)
    assert list(detections["class_name"]) == ["the mugs"] * count
    drawn = supervision.MaskAnnotator().annotate(found.image.copy(), detections)
    assert drawn.any() == bool(count)


def test_supervision_has_the_classes() -> None:
    pytest.importorskip("supervision")
    detections = group(3, labels=("mug", "plate", "mug")).to_supervision()
    assert list(detections["class_name"]) == ["mug", "plate", "mug"] and detections.class_id.tolist() == [0, 1, 0]


def test_compact_masks_of_hard_masks() -> None:
    supervision = pytest.importorskip("supervision")
    if not hasattr(supervision, "CompactMask"):
        pytest.skip(f"supervision {supervision.__version__} has no CompactMask")
    found = group(4, masks=rings())
    assert np.array_equal(np.asarray(found.to_supervision(compact=True).mask), rings())


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
