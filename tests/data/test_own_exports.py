"""COCO exports of labelling tools as own data: each form as a small true example, with the masks that it means."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect.cli import program
from maskselect.data.catalog import CATALOG
from maskselect.data.own import open_own

SIZE = (8, 12)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def box(x: int, y: int, side: int = 3) -> list[int]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def filled(x: int, y: int, side: int = 3) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE[1], SIZE[0]), "gray").save(path)
    return path


def annotation(**change: Any) -> dict[str, Any]:
    plain = {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 9, "bbox": [1, 2, 3, 3]}
    return {**plain, "segmentation": [box(1, 2)], **change}


def export(*annotations: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": list(annotations),
        "categories": [{"id": 3, "name": "mug"}],
        **change,
    }


def write(root: Path, data: Any, name: str = "train.json", encoding: str = "utf-8") -> Path:
    picture(root / "images" / "a.png")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(data if isinstance(data, str) else json.dumps(data), encoding)
    return root


def masks_of(root: Path, split: str = "train") -> dict[str, list[np.ndarray]]:
    """By prompt the masks of its targets."""
    return {s.prompt.text: [s.gt_pool[place].numpy() for place in s.targets] for s in open_own(root, split)}


def _without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def _counts(mask: np.ndarray, number: Callable[[int], Any] = int) -> dict[str, Any]:
    """Uncompressed run lengths, column by column, background first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(int)))
    ends = [0, *edges.tolist(), len(flat)]
    runs = [number(after - before) for before, after in pairwise(ends)]
    return {"size": [number(side) for side in mask.shape], "counts": runs}


IMAGE = {"id": 1, "file_name": "a.png", "height": 8, "width": 12}
READS = {
    "VIA: ids as texts, a flat polygon": export(annotation(image_id="1", segmentation=box(1, 2))),
    "corners as pairs": export(annotation(segmentation=[[[1, 2], [4, 2], [4, 5], [1, 5]]])),
    "one list of pairs": export(annotation(segmentation=[[1, 2], [4, 2], [4, 5], [1, 5]])),
    "whole numbers as 40.0": export(
        annotation(id=1.0, image_id=1.0, category_id=3.0, iscrowd=0.0, segmentation=[[float(v) for v in box(1, 2)]]),
        images=[{"id": 1.0, "file_name": "a.png", "height": 8.0, "width": 12.0}],
        categories=[{"id": 3.0, "name": "mug"}],
    ),
    "run lengths as 40.0": export(annotation(segmentation=_counts(filled(1, 2), float))),
    "no height and width": export(annotation(), images=[_without(IMAGE, "height", "width")]),
    "null as height and width": export(annotation(), images=[IMAGE | {"height": None, "width": None}]),
    "no annotation id": export(_without(annotation(), "id")),
    "null as annotation id": export(annotation(id=None)),
    "the category as a text": export(annotation(category_id="3")),
    "categories with texts as ids": export(annotation(), categories=[{"id": "3", "name": "mug"}]),
    "CVAT: drawn with a brush": export(annotation(iscrowd=1, segmentation=_counts(filled(1, 2)))),
    "area is NaN": json.dumps(export(annotation(area=float("nan"), bbox=[float("inf"), -float("inf"), 0, 0]))),
}


@pytest.mark.parametrize("data", READS.values(), ids=READS.keys())
def test_what_tools_write_is_read(tmp_path: Path, data: Any) -> None:
    found = masks_of(write(tmp_path, data))
    assert list(found) == ["mug"] and len(found["mug"]) == 1
    assert np.array_equal(found["mug"][0], filled(1, 2))


def test_a_byte_order_mark(tmp_path: Path) -> None:
    root = write(tmp_path, export(annotation()), encoding="utf-8-sig")
    assert (root / "train.json").read_bytes()[:3] == b"\xef\xbb\xbf"
    assert np.array_equal(masks_of(root)["mug"][0], filled(1, 2))
    write(root, export(annotation()), encoding="utf-16")
    with pytest.raises(ValueError, match="is in UTF-16; expected UTF-8"):
        open_own(root)


def test_words_in_texts_stay(tmp_path: Path) -> None:
    names = ['NaN "cake" \\', "Infinity"]
    several = [annotation(id=n, category_id=n, area=float("nan")) for n in (0, 1)]
    named = [{"id": number, "name": name} for number, name in enumerate(names)]
    assert list(masks_of(write(tmp_path, export(*several, categories=named)))) == names


def test_objects_without_ids_are_each_one(tmp_path: Path) -> None:
    several = [_without(annotation(segmentation=[box(x, 2)]), "id") for x in (1, 5)]
    found = masks_of(write(tmp_path, export(*several)))["mug"]
    assert [np.array_equal(mask, filled(x, 2)) for mask, x in zip(found, (1, 5), strict=True)] == [True, True]


def test_prompts_name_ids_in_any_form(tmp_path: Path) -> None:
    several = [annotation(id=str(n), segmentation=[box(4 * n, 2)]) for n in (0, 1)]
    prompts = [{"image_id": "1", "text": "right of <mask-ref>", "references": [0], "targets": [1.0], "kind": None}]
    root = write(tmp_path, export(*several, prompts=prompts))
    sample = open_own(root)[0]
    assert (sample.image_id, sample.targets, sample.reference_ids, sample.kind) == ("1", (1,), (0,), "")
    assert np.array_equal(sample.target_mask.numpy(), filled(4, 2))


def test_roboflow(tmp_path: Path) -> None:
    """Pictures beside the labels of each split, and a first category that nothing has."""
    categories = [{"id": 0, "name": "kitchen", "supercategory": "none"}, {"id": 3, "name": "mug"}]
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.png")
        name = f"{split}/_annotations.coco.json"
        (tmp_path / name).write_text(json.dumps(export(annotation(), categories=categories)))
    for split in ("train", "val", "valid"):
        assert np.array_equal(masks_of(tmp_path, split)["mug"][0], filled(1, 2))
    assert set(CATALOG["own"].open_splits(tmp_path)) == {"train", "val"}


@pytest.mark.parametrize(
    ("name", "split", "folder"),
    [
        ("labels.json", "labels", "data"),
        ("annotations/instances_default.json", "default", "images/default"),
        ("annotations/instances_default.json", "instances_default", "images"),
        ("validation.json", "val", "images/val"),
    ],
)
def test_other_names(tmp_path: Path, name: str, split: str, folder: str) -> None:
    picture(tmp_path / folder / "a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(export(annotation())))
    assert np.array_equal(masks_of(tmp_path, split)["mug"][0], filled(1, 2))


def test_label_files_of_other_names_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path, export(annotation()), "via_project_coco.json")
    write(root, export(annotation()), "annotations/instances_default.json")
    assert program.main(["data", "check", "own", "--root", str(root)]) == 2
    told = capsys.readouterr().err
    assert "via_project_coco.json (--split via_project_coco)" in told and "--split STEM takes one" in told
    assert "annotations/instances_default.json (--split instances_default)" in told and told.count("\n") == 1
    assert program.main(["data", "check", "own", "--root", str(root), "--split", "via_project_coco"]) == 0


FEW = [0.1, 0.2, 0.4, 0.2, 0.4, 0.5]
AT_ONCE = {
    "boxes only": (export(annotation(segmentation=[])), "has boxes only, .*export polygons or masks"),
    "no category name": (export(annotation(), categories=[{"id": 3}]), "category 3 has the name 'None'; expected"),
    "an unlisted category": (export(annotation(category_id=4)), "has the category_id '4'; expected one of the 1"),
    "iscrowd as a word": (export(annotation(iscrowd="false")), "annotation 1: iscrowd is 'false'; expected 0 or 1"),
    "annotations absent": (_without(export(), "annotations"), "has no annotations: that list is absent"),
    "annotations empty": (export(), "has no annotations: that list is empty"),
    "annotations null": (export(annotations=None), "has no annotations: that list is null"),
    "annotations as object": (export(annotations={"1": annotation()}), "has an object as annotations; expected a list"),
    "prompts as object": (export(annotation(), prompts={"a": {}}), "has an object as prompts; expected a list"),
    "images as object": (export(annotation(), images={"1": IMAGE}), "has no images: that list is an object"),
    "a pointer": (LFS, r"train\.json is a Git LFS pointer, .*git lfs pull"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "told"), AT_ONCE.values(), ids=AT_ONCE.keys())
def test_files_that_are_refused(tmp_path: Path, data: Any, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path, data)
    with pytest.raises(ValueError, match=told):
        open_own(root)
    assert program.main(["data", "check", "own", "--root", str(root)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


SECOND = annotation(id=2, category_id=3)
ONE_BY_ONE = {
    "a box beside outlines": (export(annotation(segmentation=[]), SECOND), "annotation 1 has a box but no seg"),
    "fractions": (export(annotation(segmentation=[FEW])), "annotation 1 has coordinates within 0 to 1, .*pixels"),
    "half a corner": (export(annotation(segmentation=[[*box(1, 2), 1]])), "a polygon of 9 numbers; expected pairs"),
    "an absolute name": (export(annotation(), images=[IMAGE | {"file_name": "/data/a.png"}]), "is an absolute path"),
    "a Windows path": (export(annotation(), images=[IMAGE | {"file_name": "C:\\data\\a.png"}]), "is an absolute path"),
    "an address": (
        export(annotation(), images=[IMAGE | {"file_name": "https://x.org/a.png"}]), "is a web address.*download it"
    ),
    "a name that leads out": (export(annotation(), images=[IMAGE | {"file_name": "../a.png"}]), r"holds '\.\.'"),
    "a size that is none": (export(annotation(), images=[IMAGE | {"height": 0}]), "has height and width"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "told"), ONE_BY_ONE.values(), ids=ONE_BY_ONE.keys())
def test_samples_that_are_refused(tmp_path: Path, data: Any, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path, data)
    picture(tmp_path.parent / "a.png")
    samples = open_own(root)
    assert len(samples) == 1
    with pytest.raises(ValueError, match=told):
        samples[0]
    assert program.main(["data", "check", "own", "--root", str(root)]) == 1
    assert "annotation or image damaged: 1" in capsys.readouterr().out


def test_a_pointer_in_place_of_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path, export(annotation()))
    (root / "images" / "a.png").write_text(LFS)
    assert program.main(["data", "check", "own", "--root", str(root)]) == 1
    assert "a.png is a Git LFS pointer, not the file itself; run `git lfs pull`" in capsys.readouterr().out


def test_annotations_may_be_absent_where_nothing_answers(tmp_path: Path) -> None:
    root = write(tmp_path, export(prompts=[{"image_id": 1, "text": "a horse", "targets": []}]))
    assert masks_of(root) == {"a horse": []}
