"""Keys that stand twice: no reader keeps the last of two records and says nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect.data.catalog import SampleReader
from maskselect.data.coco import CocoDataset
from maskselect.data.files import read_json
from maskselect.data.index import Section, open_index
from maskselect.data.llm_seg40k import LlmSeg40kDataset
from maskselect.data.maskgroups import MaskGroupsDataset
from maskselect.data.maskgroups_writer import MaskGroupRow
from maskselect.data.muse import MuseDataset
from maskselect.data.own import open_own
from maskselect.data.panoptic import PanopticDataset
from maskselect.data.refer import ReferDataset
from maskselect.data.values import by_key
from maskselect.data.visual_genome import VisualGenome
from maskselect.ops import rle
from tests.data.test_maskgroups import write_in_form

Data = dict[str, Any]


def box(x: int) -> list[list[int]]:
    return [[x, 0, x + 3, 0, x + 3, 3, x, 3]]


def coco() -> Data:
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 12} for n in (1, 2)],
        "annotations": [
            {"id": 10, "image_id": 1, "segmentation": box(0), "category_id": 1},
            {"id": 11, "image_id": 1, "segmentation": box(4), "category_id": 2},
            {"id": 20, "image_id": 2, "segmentation": box(8), "category_id": 1},
        ],
        "categories": [{"id": 1, "name": "mug"}, {"id": 2, "name": "plate"}, {"id": 3, "name": "fork"}],
        "prompts": [
            {"id": "a", "image_id": 1, "text": "all", "targets": [10, 11]},
            {"id": "b", "image_id": 1, "text": "none", "targets": []},
        ],
    }


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(folder / f"{number}.png")


def own(root: Path, data: Data) -> SampleReader:
    pictures(root / "images")
    (root / "train.json").write_text(json.dumps(data))
    return open_own(root)


def changed(section: str, place: int, **values: Any) -> Data:
    data = coco()
    data[section][place] |= values
    return data


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (changed("annotations", 1, id=10), "annotation number 0 and annotation number 1 have the same id 10"),
        (changed("annotations", 1, id="10"), "annotation number 0 and annotation number 1 have the same id '?10'?"),
        (changed("images", 1, id=1), "image number 0 and image number 1 have the same id 1"),
        (changed("images", 1, id="1"), "image number 0 and image number 1 have the same id '?1'?"),
        (changed("categories", 2, id=2), "category number 1 and category number 2 have the same id 2"),
        (changed("prompts", 1, id="a"), "prompt number 0 and prompt number 1 have the same id 'a'"),
    ],
)
def test_own_data(data: Data, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"train\.json, {told}; expected every id once"):
        own(tmp_path, data)


def test_two_images_may_have_annotations_of_one_id(tmp_path: Path) -> None:
    """They are looked up among those of their image."""
    samples = list(own(tmp_path, changed("annotations", 2, id=10)))
    assert [s.targets for s in samples] == [(0, 1), ()] and int(samples[0].target_mask.sum()) == 18


def instances(root: Path, data: Data) -> CocoDataset:
    pictures(root / "val2017")
    (root / "instances_val2017.json").write_text(json.dumps(data))
    return CocoDataset(root)


@pytest.mark.parametrize("opened", [own, instances])
def test_two_categories_of_one_name_would_be_asked_for_with_half_the_targets_each(
    opened: Callable[[Path, Data], Any], tmp_path: Path
) -> None:
    data = changed("categories", 1, name="Mug ")
    del data["prompts"]
    with pytest.raises(ValueError, match="category number 0 and category number 1 have the same name 'Mug '"):
        opened(tmp_path, data)
    data["annotations"][1]["category_id"] = 1  # now nothing has the second one, as in exports of Roboflow
    assert [(s.prompt.text, s.targets) for s in opened(tmp_path, data)] == [("mug", (0, 1)), ("mug", (0,))]


def test_panoptic(tmp_path: Path) -> None:
    pictures(tmp_path / "val2017")
    (tmp_path / "panoptic_val2017").mkdir()
    Image.fromarray(np.full((8, 12, 3), (7, 0, 0), np.uint8)).save(tmp_path / "panoptic_val2017/1.png")
    one = {"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 7, "category_id": 1}]}
    data = coco() | {"annotations": [one]}
    file = tmp_path / "panoptic_val2017.json"

    def opened(**sections: Any) -> PanopticDataset:
        file.write_text(json.dumps(data | sections))
        return PanopticDataset(tmp_path)

    assert len(opened()) == 1
    with pytest.raises(ValueError, match="annotation number 0 and annotation number 1 have the same image_id 1"):
        opened(annotations=[one, one])
    names = [{"id": 1, "name": "window-other"}, {"id": 2, "name": "window-stuff"}]
    with pytest.raises(ValueError, match="category number 0 and category number 1 have the same name 'window'"):
        opened(categories=names)


def test_muse_takes_an_id_with_two_outlines_for_two_masks(tmp_path: Path) -> None:
    answers = [
        [{"id": 5, "segmentation": box(0)}],
        [{"id": 5, "segmentation": box(0)}, {"id": 5, "segmentation": box(4)}],
    ]
    record = {"file_name": "train2017/1.png", "height": 8, "width": 12, "questions": ["a", "b"], "answers": answers}
    pictures(tmp_path / "train2017")
    (tmp_path / "muse_val.json").write_text(json.dumps([record]))
    first, second = MuseDataset(tmp_path, "val")
    assert (first.targets, second.targets, len(second.gt_pool)) == ((0,), (0, 1), 2)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_maskgroups(form: Any, tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    codes = rle.encode(np.ones((1, 8, 12), bool))
    rows = [MaskGroupRow(name, "1.png", "all", codes, (0,), (8, 12)) for name in ("a", "b", "a")]
    write_in_form(tmp_path, "train", rows[:2], form)
    assert len(MaskGroupsDataset(tmp_path, "train")) == 2
    write_in_form(tmp_path, "train", rows, form)
    with pytest.raises(ValueError, match=rf"train\.{form}, row number 0 and row number 2 have the same id 'a'"):
        MaskGroupsDataset(tmp_path, "train")


def test_refer(tmp_path: Path) -> None:
    home = tmp_path / "grefcoco"
    home.mkdir()
    pictures(tmp_path / "images/train2014")
    (home / "instances.json").write_text(json.dumps(coco()))
    ref = {"ref_id": 3, "image_id": 1, "ann_id": [10], "split": "val", "sentences": [{"sent_id": 1, "sent": "a"}]}

    def opened(*refs: Data) -> ReferDataset:
        (home / "grefs(unc).json").write_text(json.dumps(refs))
        return ReferDataset("grefcoco", tmp_path, "val")

    assert opened(ref, ref | {"ref_id": 4})[1].sample_id == "4:1"
    with pytest.raises(ValueError, match="ref number 0 and ref number 1 have the same ref_id 3"):
        opened(ref, ref)
    with pytest.raises(
        ValueError, match=r"reference 3 .* sentence number 0 and sentence number 1 have the same sent_id 1"
    ):
        opened(ref | {"sentences": ref["sentences"] * 2})[0]


def test_visual_genome(tmp_path: Path) -> None:
    thing = {"object_id": 4, "names": ["mug"], "x": 0, "y": 0, "w": 3, "h": 3}
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "image_data.json").write_text(json.dumps([{"image_id": 1, "width": 12, "height": 8}]))
    (tmp_path / "objects.json").write_text(json.dumps([{"image_id": 1, "objects": [thing, thing | {"x": 5}]}]))
    with pytest.raises(ValueError, match=r"image 1 .* object number 0 and object number 1 have the same object_id 4"):
        VisualGenome(tmp_path).describe(1)


def test_keys_of_json_objects(tmp_path: Path) -> None:
    """`json` keeps the last of two and says nothing; whole videos or images would vanish."""
    file = tmp_path / "test.json"
    file.write_text('{"videos": {"a": {"frames": []}, "b": {}, "a": {}}}')
    with pytest.raises(ValueError, match=r"test\.json, entry .* number 0 and entry .* number 2 have the same key 'a'"):
        read_json(file)
    file.write_text('{"1.jpg": {"qa_pairs": []}, "1.jpg": {"qa_pairs": []}}')
    with pytest.raises(ValueError, match=r"image number 0 and image number 1 have the same file_name '1\.jpg'"):
        LlmSeg40kDataset(tmp_path, "test")


def test_an_index_that_was_made_before_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the records of an earlier version would be trusted unchecked."""
    file = tmp_path / "file.json"
    file.write_text(json.dumps([{"id": 1}, {"id": 1}]))
    with monkeypatch.context() as patch:
        patch.setattr("maskselect.data.index._VERSION", 1)
        patch.setattr("maskselect.data.index._refuse_same_keys", lambda *_: None)
        open_index(file, {"one": Section("")})
    with pytest.raises(ValueError, match="one number 0 and one number 1 have the same id 1"):
        open_index(file, {"one": Section("")})


def test_by_key() -> None:
    assert by_key([(1, "a"), (2, "b")], lambda pair: pair[0], "file", "row") == {1: (1, "a"), 2: (2, "b")}
    with pytest.raises(ValueError, match="file, row number 0 and row number 1 have the same id '1'"):
        by_key([1, "1"], lambda one: one, "file", "row")
