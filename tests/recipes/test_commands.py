"""`maskselect data build` as a user types it, and on Ray with the shipped SAM."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.cli.program import main
from maskselect.data.llm_seg40k import LlmSeg40kDataset
from maskselect.data.maskgroups_2m import MaskGroups2MDataset
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.overlap import pairwise_iou
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.maskgroups_2m.build import Roots, build_maskgroups_2m
from maskselect.scenes.layout import scene_ids
from maskselect.scenes.render import render
from maskselect.scenes.stream import scene_of
from tests.recipes import llm_seg40k_world as llm
from tests.recipes import test_maskgroups_2m as groups
from tests.recipes.endpoint import serving


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    status = main(["data", "build", *map(str, words)], prog="maskselect")
    told = capsys.readouterr()
    return status, told.out, told.err


def test_maskgroups_2m(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roots = ["--refer", groups.refer(tmp_path / "refer"), "--coco", groups.coco(tmp_path / "coco")]
    output = tmp_path / "out"
    asked = ["maskgroups-2m", *roots, "--output", output]
    status, out, err = run(capsys, *asked)
    assert status == 2 and out == "" and "refcoco+" in err and err.count("\n") == 1 and not output.exists()
    status, out, err = run(capsys, *asked, "--sets", *groups.SETS)
    assert (status, err) == (0, "")
    assert any("coco" in line and "category" in line and line.rstrip().endswith("166") for line in out.splitlines())
    assert "COCO and LVIS: objects after merging: 4" in out
    assert len(MaskGroups2MDataset(output)) == 6
    status, _, err = run(capsys, *asked, "--sets", *groups.SETS, "--seed", 1)
    assert status == 2 and "other settings (rules)" in err


def test_llm_seg40k(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    llm.write_lvis(tmp_path / "lvis")
    output = tmp_path / "out"
    with serving(llm.well) as endpoint:
        asked = ["llm-seg40k", "--lvis", tmp_path / "lvis", "--model", "stand-in", "--output", output, "--png"]
        status, out, err = run(capsys, *asked, "--endpoint", endpoint.url)
        assert status == 0 and all("reads nearly black" in line for line in err.splitlines()), err
        first = len(endpoint.requests)
        assert run(capsys, *asked, "--endpoint", endpoint.url)[0] == 0
        assert len(endpoint.requests) == first  # nothing is asked twice
    assert "LVIS simple" in out and "questions offered" in out and "6000" in out
    samples = [s for split in ("train", "validation", "test") for s in _samples(output, split)]
    assert samples and all(sample.target_mask.any() for sample in samples)
    status, _, err = run(capsys, *asked[:-3], "--output", tmp_path / "other", "--captioner", "ras")
    assert status == 2 and "expected a ras of stage 1" in err


def _samples(output: Path, split: str) -> list[Any]:
    try:
        return list(LlmSeg40kDataset(output, split))
    except ValueError:  # a split of so few images may be empty
        return []


def genome_of_scenes(root: Path, count: int) -> dict[int, Any]:
    """Generated scenes as Visual Genome tells of images; gives their true masks."""
    images, objects, truth = [], [], {}
    (root / "VG_100K").mkdir(parents=True)
    for number, scene_id in enumerate(scene_ids("test", 7, count), 1):
        scene = scene_of(scene_id)
        drawing = render(scene)
        masks = drawing.masks(len(scene.objects))
        Image.fromarray(drawing.image).save(root / "VG_100K" / f"{number}.jpg", quality=95)
        told = []
        for place, (one, mask) in enumerate(zip(scene.objects, masks, strict=True)):
            rows, columns = np.nonzero(mask)
            x, y = int(columns.min()), int(rows.min())
            box = {"x": x, "y": y, "w": int(columns.max()) + 1 - x, "h": int(rows.max()) + 1 - y}
            told.append({"object_id": 100 * number + place, "names": [one.category], "synsets": [], **box})
        height, width = drawing.image.shape[:2]
        images.append({"image_id": number, "width": width, "height": height, "coco_id": None})
        objects.append({"image_id": number, "objects": told})
        truth[number] = masks
    groups.write(root / "image_data.json", images)
    groups.write(root / "objects.json", objects)
    return truth


@pytest.mark.slow
def test_ray_asks_the_same_questions(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    llm.write_lvis(tmp_path / "lvis")
    with serving(llm.well) as endpoint:
        asked = ["llm-seg40k", "--lvis", tmp_path / "lvis", "--model", "stand-in", "--endpoint", endpoint.url]
        for name, engine in (("here", []), ("ray", ["--engine", "ray", "--workers", 2])):
            assert run(capsys, *asked, "--output", tmp_path / name, *engine)[0] == 0
    for name in ("train.json", "validation.json", "test.json", "report.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()


@pytest.mark.slow
def test_sam_makes_the_masks_and_ray_makes_the_same_files(tmp_path: Path) -> None:
    truth = genome_of_scenes(tmp_path / "vg", 6)
    roots = Roots(groups.refer(tmp_path / "refer"), groups.coco(tmp_path / "coco"), genome=tmp_path / "vg")
    boxes = ProposerBoxes("sam", "cpu")
    common: dict[str, Any] = {"sets": groups.SETS, "boxes": boxes, "per_shard": 3}
    rows, counts = build_maskgroups_2m(roots, tmp_path / "here", **common)
    again, _ = build_maskgroups_2m(roots, tmp_path / "ray", engine="ray", workers=2, **common)
    assert groups.files(tmp_path / "here") == groups.files(tmp_path / "ray") and rows == again
    assert counts["Visual Genome: boxes"] == sum(len(masks) for masks in truth.values())
    best = []
    for sample in MaskGroups2MDataset(tmp_path / "here"):
        if sample.image_id.startswith("vg/"):
            masks = torch.from_numpy(truth[int(sample.image_id[3:])])
            best.append(pairwise_iou(sample.gt_pool, masks).max(1).values)
            assert bool((masks_to_boxes_xyxy(sample.gt_pool)[:, 2] > 0).all())
    assert best and float(torch.cat(best).mean()) > 0.8
    assert json.loads((tmp_path / "here/composition.json").read_text())["boxes"].startswith("sam ")
