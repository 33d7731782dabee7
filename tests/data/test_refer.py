"""The REFER family, on tiny files in the published form and on the real sample."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect.data.refer import VARIANTS, ReferDataset, in_split

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]  # rows and columns 1 to 3
OVERLAP = [[1, 1, 4, 1, 4, 4, 1, 4], [2, 2, 6, 2, 6, 6, 2, 6]]


def _sentences(*texts: str) -> list[dict[str, Any]]:
    return [{"sent_id": n, "sent": t, "raw": t.upper(), "tokens": t.split()} for n, t in enumerate(texts)]


def _instances() -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "file_name": "COCO_train2014_000000000001.jpg", "height": 8, "width": 10},
            {"id": 2, "file_name": "COCO_train2014_000000000002.jpg", "height": 8, "width": 10},
        ],
        "annotations": [
            {"id": 11, "image_id": 1, "segmentation": SQUARE, "iscrowd": 0},
            {"id": 12, "image_id": 1, "segmentation": OVERLAP, "iscrowd": 0},
            {"id": 13, "image_id": 1, "segmentation": {"size": [8, 10], "counts": [0, 80]}, "iscrowd": 1},
            {"id": 21, "image_id": 2, "segmentation": [], "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


REFS: list[dict[str, Any]] = [
    {
        "ref_id": 5,
        "image_id": 1,
        "ann_id": 12,
        "split": "val",
        "file_name": "x_12.jpg",
        "sentences": _sentences("a", "b"),
    },
    {"ref_id": 6, "image_id": 2, "ann_id": 21, "split": "val", "sentences": _sentences("c")},
    {"ref_id": 7, "image_id": 1, "ann_id": 11, "split": "val", "sentences": _sentences("d ")},
    {"ref_id": 8, "image_id": 2, "ann_id": 21, "split": "testAB", "sentences": _sentences("e")},
]


def write_root(folder: Path, name: str = "refcoco", refs: Any = None, instances: Any = None, protocol: int = 2) -> Path:
    variant = VARIANTS[name]
    home, images = folder / variant.folder, folder / "images" / "train2014"
    home.mkdir(parents=True)
    images.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(images / f"COCO_train2014_{number:012}.jpg")
    (home / "instances.json").write_text(json.dumps(instances or _instances()))
    stem = "grefs(unc).json" if name == "grefcoco" else f"refs({variant.by}).p"
    data = REFS if refs is None else refs
    if stem.endswith(".json"):
        (home / stem).write_text(json.dumps(data))
    else:
        (home / stem).write_bytes(pickle.dumps(data, protocol))
    return folder


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_one_sample_a_sentence_those_of_an_image_together(tmp_path: Path, protocol: int) -> None:
    data = ReferDataset("refcoco", write_root(tmp_path, protocol=protocol), "val")
    samples = list(data)
    assert [s.prompt.text for s in samples] == ["a", "b", "d", "c"]
    assert [s.image_id for s in samples] == data.image_ids() == ["1", "1", "1", "2"]
    assert [s.sample_id for s in samples] == ["5:0", "5:1", "7:0", "6:0"]
    first = samples[0]
    assert first.gt_pool.shape == (2, 8, 10) and first.targets == (1,)  # the crowd is not in the pool
    assert str(first.image).endswith("000000000001.jpg")
    assert int(samples[2].target_mask.sum()) == 9
    assert int(first.target_mask.sum()) == 9 + 16 - 4  # overlapping polygons are united
    assert not samples[3].target_mask.any()  # without outline
    assert ReferDataset("refcoco", tmp_path, "testA")[0].prompt.text == "e"


def test_splits() -> None:
    assert [in_split("testAB", s) for s in ("testA", "testB", "testC", "test", "val")] == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert in_split("train", "train") and not in_split("trainval", "train")


def test_many_and_no_targets(tmp_path: Path) -> None:
    refs = [
        {"ref_id": 1, "image_id": 1, "ann_id": [11, 12], "split": "val", "sentences": _sentences("both")},
        {"ref_id": 2, "image_id": 1, "ann_id": [-1], "split": "val", "sentences": _sentences("none")},
        {"ref_id": 3, "image_id": 1, "ann_id": [13, 11], "split": "val", "sentences": _sentences("with a crowd")},
    ]
    data = ReferDataset("grefcoco", write_root(tmp_path, "grefcoco", refs), "val")
    assert [s.targets for s in data] == [(0, 1), (), (0,)]
    assert not data[1].target_mask.any() and data[1].gt_pool.shape == (2, 8, 10)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ann_id": 99}, "reference 5 in .*annotation 99 is not among those of image 1"),
        ({"ann_id": -1}, "reference 5 in .*no annotation"),
        ({"image_id": 9}, "no image with the id 9"),
        ({"sentences": [5]}, "reference 5 in "),
        ({"sentences": [{"sent": " "}]}, "reference 5 in .*empty"),
    ],
)
def test_references_that_contradict_themselves(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    data = ReferDataset("refcoco", write_root(tmp_path, refs=[{**REFS[0], **change}]), "val")
    with pytest.raises(ValueError, match=told):
        data[0]


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        ({"size": [4, 4], "counts": [0, 16]}, r"annotation 12: its RLE is of size \[4, 4\], the image of \[8, 10\]"),
        ({"size": [8, 10], "counts": [0, 16]}, "annotation 12"),
        ({"size": [8, 10], "counts": [-5, 85]}, "annotation 12"),
        ({"size": [8, 10], "counts": "%%%"}, "annotation 12"),
        (["text"], "annotation 12"),
        ([[1, 2, "x", 3, 4, 5]], "annotation 12"),
        (7, "annotation 12"),
    ],
)
def test_outlines_that_cannot_be_read(tmp_path: Path, annotation: Any, told: str) -> None:
    instances = _instances()
    instances["annotations"][1]["segmentation"] = annotation
    data = ReferDataset("refcoco", write_root(tmp_path, instances=instances), "val")
    with pytest.raises(ValueError, match=told):
        data[0]


@pytest.mark.parametrize("size", [(0, 10), (-1, 10), (10**9, 10), ("8 px", 10), (8.5, 10), (True, 10), (None, 10)])
def test_absurd_sizes(tmp_path: Path, size: tuple[Any, Any]) -> None:
    instances = _instances()
    instances["images"][0]["height"], instances["images"][0]["width"] = size
    data = ReferDataset("refcoco", write_root(tmp_path, instances=instances), "val")
    with pytest.raises(ValueError, match="height and width"):
        data[0]


def test_layout_and_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no annotations of refcoco .*looked for refcoco or refer_seg/refcoco"):
        ReferDataset("refcoco", tmp_path, "val")
    with pytest.raises(ValueError, match="unknown data set 'x'"):
        ReferDataset("x", tmp_path, "val")
    write_root(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no reference in split 'train'; it has testAB, val"):
        ReferDataset("refcoco", tmp_path, "train")
    (tmp_path / "images/train2014/COCO_train2014_000000000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="COCO_train2014_000000000001"):
        ReferDataset("refcoco", tmp_path, "val")[0]


def test_an_image_name_that_leads_out(tmp_path: Path) -> None:
    instances = _instances()
    instances["images"][0]["file_name"] = "../../../etc/passwd"
    data = ReferDataset("refcoco", write_root(tmp_path, instances=instances), "val")
    with pytest.raises(ValueError, match="leads out of its folder"):
        data[0]


def test_real_references(shared_data: Path) -> None:
    root = shared_data / "refcoco_mini"
    published = json.loads((root / "refcoco" / "refs_unc.json").read_text())
    sizes = {split: len(ReferDataset("refcoco", root, split)) for split in ("val", "testA", "testB")}
    assert sum(sizes.values()) == 74 == sum(len(ref["sentences"]) for ref in published)
    for split in sizes:
        data = ReferDataset("refcoco", root, split)
        for sample in data:
            assert len(sample.targets) == 1 and sample.target_mask.any()
        texts = {s["sent"] for ref in published if ref["split"] == split for s in ref["sentences"]}
        assert {sample.prompt.text for sample in data} == {text.strip() for text in texts}
