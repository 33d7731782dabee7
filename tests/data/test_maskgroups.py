import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from maskselect.data.maskgroups import MaskGroupsDataset
from maskselect.data.maskgroups_writer import MaskGroupRow, as_record, write_maskgroups
from maskselect.evaluation.questions import open_samples
from maskselect.ops import rle
from maskselect.recipes.scene_files import write_scenes
from maskselect.scenes.samples import ask_scene


def three_masks() -> np.ndarray:
    pool = np.zeros((3, 12, 16), bool)
    pool[0, :4, :4] = pool[1, 4:9, 4:9] = pool[2, :, 12:] = True
    return pool


@pytest.fixture
def masks() -> np.ndarray:
    return three_masks()


def rows(masks: np.ndarray) -> list[MaskGroupRow]:
    codes = rle.encode(masks)
    stranger = rle.encode(np.ones((1, 12, 16), bool))
    common: dict[str, Any] = {"image": "a.png", "gt_mask_pool": codes, "image_size": (12, 16)}
    return [
        MaskGroupRow("one", query="the mugs", targets=(0, 2), mask_pool=codes[:2], kind="category", **common),
        MaskGroupRow(
            "two", query="left of <mask-ref> or <mask-ref>", targets=(), references=[codes[1], *stranger], **common
        ),
    ]


def folder(root: Path, name: str = "images") -> Path:
    (root / name).mkdir(parents=True)
    Image.new("RGB", (16, 12)).save(root / name / "a.png")
    return root


def write_in_form(root: Path, split: str, rows: list[MaskGroupRow], form: str) -> None:
    """Published copies may be JSON; we write parquet only."""
    if form == "parquet":
        write_maskgroups(root, split, rows)
        return
    records = [as_record(row) for row in rows]
    text = json.dumps(records) if form == "json" else "".join(json.dumps(record) + "\n" for record in records)
    (root / f"{split}.{form}").write_text(text)


@pytest.mark.parametrize("form", ["parquet", "jsonl", "json"])
@pytest.mark.parametrize("images", ["images", "images_resized"])
def test_what_is_written_is_read(tmp_path: Path, masks: np.ndarray, form: str, images: str) -> None:
    write_in_form(folder(tmp_path, images), "val", rows(masks), form)
    data = MaskGroupsDataset(tmp_path, "val")
    first, second = data
    assert (first.sample_id, first.prompt.text, first.targets, first.kind) == ("one", "the mugs", (0, 2), "category")
    assert first.image == tmp_path / images / "a.png"
    assert np.array_equal(first.gt_pool.numpy(), masks)
    assert torch.equal(first.target_mask, torch.from_numpy(masks[0] | masks[2]))
    assert second.prompt.text == "left of <mask-ref> or <mask-ref>"
    assert second.reference_ids == (1, -1)
    assert np.array_equal(second.prompt.references[0].numpy(), masks[1])
    assert (second.targets, second.kind) == ((), "")
    assert data.image_ids() == ["a.png", "a.png"]
    with pytest.raises(IndexError):
        data[2]


def published(masks: np.ndarray, **changes: Any) -> dict[str, Any]:
    """A row as others might write it."""
    codes = rle.encode(masks)
    return {
        "id": 7, "image": "a.png", "conversations": [{"from": "human", "value": "<image>\n<mask_pool>\n  The cup."}],
        "mask_pool": [], "gt_mask_pool": codes, "gt_mask_group": [[1]],
    } | changes  # fmt: skip


def write_json(root: Path, *records: dict[str, Any]) -> Path:
    (folder(root) / "val.json").write_text(json.dumps(records))
    return root


def test_other_spellings_and_columns(tmp_path: Path, masks: np.ndarray) -> None:
    turn = [{"from": "human", "value": "<image>\n<mask_pool>\nnear <mask_ref>"}, {"from": "gpt", "value": "<mask-ref>"}]
    record = published(masks, conversations=turn, mask_refs=rle.encode(masks[:1]), gt_mask_group=[2])
    sample = MaskGroupsDataset(write_json(tmp_path, record), "val")[0]
    assert (sample.sample_id, sample.prompt.text, sample.targets) == ("7", "near <mask-ref>", (2,))
    assert sample.reference_ids == (0,)


def test_nested_values_kept_as_text(tmp_path: Path, masks: np.ndarray) -> None:
    record = {name: value if name == "image" else json.dumps(value) for name, value in published(masks).items()}
    pq.write_table(pa.Table.from_pylist([record]), folder(tmp_path) / "val.parquet")
    sample = MaskGroupsDataset(tmp_path, "val")[0]
    assert (sample.prompt.text, sample.targets) == ("The cup.", (1,))


def test_shards_are_joined_and_candidates_found(tmp_path: Path, masks: np.ndarray) -> None:
    (folder(tmp_path) / "data").mkdir()
    codes = rle.encode(masks)
    for shard in range(2):
        records = [published(masks, id=f"{shard}{k}", mask_pool=codes[: k + shard]) for k in range(3)]
        table = pa.Table.from_pylist(records)
        pq.write_table(table, tmp_path / "data" / f"val-0000{shard}-of-00002.parquet", row_group_size=2)
    data = MaskGroupsDataset(tmp_path, "val")
    assert [sample.sample_id for sample in data] == ["00", "01", "02", "10", "11", "12"]
    assert [data[k].sample_id for k in (5, 0, 3, 1, 4, 2)] == ["12", "00", "10", "01", "11", "02"]


def test_masks_of_another_size_are_resized(tmp_path: Path, masks: np.ndarray) -> None:
    large = masks.repeat(3, 1).repeat(3, 2)
    sample = MaskGroupsDataset(write_json(tmp_path, published(large)), "val")[0]
    assert np.array_equal(sample.gt_pool.numpy(), masks)


def test_no_pool_and_no_group(tmp_path: Path, masks: np.ndarray) -> None:
    sample = MaskGroupsDataset(write_json(tmp_path, published(masks, gt_mask_pool=[], gt_mask_group=[[]])), "val")[0]
    assert sample.gt_pool.shape == (0, 12, 16)
    assert sample.targets == ()


def test_the_missing_layout_is_described(tmp_path: Path, masks: np.ndarray) -> None:
    with pytest.raises(FileNotFoundError, match=r"no split 'val' in .*: looked for val\.parquet, val\.jsonl"):
        MaskGroupsDataset(tmp_path, "val")
    (tmp_path / "val.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match=r"looked for images_resized/, images/ and images_resized\.zip"):
        MaskGroupsDataset(tmp_path, "val")


def test_a_missing_reference_column_is_told_with_those_found(tmp_path: Path, masks: np.ndarray) -> None:
    turn = [{"from": "human", "value": "<mask_pool>\nnear <mask-ref>"}]
    write_json(tmp_path, published(masks, conversations=turn, refs=rle.encode(masks[:1])))
    with pytest.raises(ValueError, match=r"no column 'mask_refs' of reference masks; found conversations, .*refs"):
        MaskGroupsDataset(tmp_path, "val")
    assert len(MaskGroupsDataset(tmp_path, "val", reference_column="refs")[0].prompt.references) == 1


def test_without_references_the_column_is_not_needed(tmp_path: Path, masks: np.ndarray) -> None:
    assert len(MaskGroupsDataset(write_json(tmp_path, published(masks)), "val")) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gt_mask_group": [[3]]}, "gt_mask_group holds 3 but gt_mask_pool has 3 masks"),
        ({"conversations": [{"from": "gpt", "value": "hm"}]}, "no human turn"),
        ({"conversations": [{"from": "human", "value": "<mask_pool>\n"}]}, "prompt is empty"),
        ({"gt_mask_pool": [{"size": [12, 16]}] * 2}, "not a COCO segmentation"),
        ({"mask_refs": [{"size": [12, 16], "counts": [192]}]}, "0 <mask-ref> but 1 reference"),
    ],
)
def test_a_bad_sample_is_named(tmp_path: Path, masks: np.ndarray, changes: dict[str, Any], said: str) -> None:
    data = MaskGroupsDataset(write_json(tmp_path, published(masks, **changes)), "val")
    with pytest.raises(ValueError, match=f"sample 7 of .*{said}"):
        data[0]


def test_damaged_files(tmp_path: Path, masks: np.ndarray) -> None:
    folder(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "b.json").write_text('[{"id": ')
    (tmp_path / "c.jsonl").write_text('{"id": 1}')
    expected = {"a": "not parquet", "b": "truncated or not JSON", "c": "no column.* conversations, gt_mask"}
    for split, said in expected.items():
        with pytest.raises(ValueError, match=said):
            MaskGroupsDataset(tmp_path, split)


@pytest.mark.parametrize("inner", ["", "images_resized/"])
def test_the_published_zip_is_unpacked(tmp_path: Path, masks: np.ndarray, inner: str) -> None:
    source = folder(tmp_path / "source") / "images/a.png"
    root = tmp_path / "copy"
    write_maskgroups(root, "val", rows(masks))
    with zipfile.ZipFile(root / "images_resized.zip", "w") as zipped:
        zipped.write(source, f"{inner}a.png")
    sample = MaskGroupsDataset(root, "val")[0]
    assert sample.image == root / "images_resized/a.png" and sample.image.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in root.iterdir()) == ["images_resized", "images_resized.zip", "val.parquet"]


def test_images_cannot_leave_the_folder(tmp_path: Path, masks: np.ndarray) -> None:
    row = MaskGroupRow("one", "../../secret.png", "the mugs", rle.encode(masks), (0,), (12, 16))
    write_maskgroups(folder(tmp_path), "val", [row])
    with pytest.raises(ValueError, match="leads out of its folder"):
        MaskGroupsDataset(tmp_path, "val")[0]


def test_a_missing_image_is_named(tmp_path: Path, masks: np.ndarray) -> None:
    data = MaskGroupsDataset(write_json(tmp_path, published(masks, image="b.png")), "val")
    with pytest.raises(FileNotFoundError, match=r"b\.png does not exist"):
        data[0]


def test_rows_that_contradict_themselves_are_not_written(masks: np.ndarray) -> None:
    codes = rle.encode(masks)
    with pytest.raises(ValueError, match="1 <mask-ref> in the query but 0 reference masks"):
        MaskGroupRow("x", "a.png", "near <mask-ref>", codes, (), (12, 16))
    with pytest.raises(ValueError, match="do not fit 3 masks"):
        MaskGroupRow("x", "a.png", "all", codes, (3,), (12, 16))


def test_a_failing_writer_leaves_nothing(tmp_path: Path, masks: np.ndarray) -> None:
    def failing() -> Any:
        yield rows(masks)[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_maskgroups(tmp_path, "val", failing())
    assert list(tmp_path.iterdir()) == []


# Generated scenes.
def test_scenes_on_disk_are_the_scenes_asked_about(tmp_path: Path) -> None:
    path = write_scenes(tmp_path, "test", 3, seed=4, image_size=(96, 128), prompts_per_scene=4)
    assert path == tmp_path / "test.parquet"
    made = [sample for k in range(3) for sample in ask_scene(f"test-4-{k}", (96, 128), 4).samples()]
    stored = list(MaskGroupsDataset(tmp_path, "test"))
    assert len(stored) == len(made)
    for a, b in zip(stored, made, strict=True):
        assert (a.sample_id, a.prompt.text, a.targets, a.kind) == (b.sample_id, b.prompt.text, b.targets, b.kind)
        assert a.reference_ids == b.reference_ids
        assert torch.equal(a.gt_pool, b.gt_pool)
        assert torch.equal(a.prompt.references, b.prompt.references)
        assert np.array_equal(np.asarray(Image.open(a.image)), b.image)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    written = [write_scenes(tmp_path / name, "val", 2, seed=1, image_size=(64, 64)) for name in ("a", "b")]
    for file in sorted((tmp_path / "a").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
    other = write_scenes(tmp_path / "c", "val", 2, seed=2, image_size=(64, 64))
    assert other.read_bytes() != written[0].read_bytes()


def test_a_proposer_fills_the_pool(tmp_path: Path) -> None:
    write_scenes(tmp_path, "val", 1, 0, (64, 64), 2, propose=lambda image: np.ones((2, *image.shape[:2]), bool))
    (row, *_) = pq.read_table(tmp_path / "val.parquet").to_pylist()
    assert len(row["mask_pool"]) == 2


@pytest.mark.parametrize(("split", "count", "side"), [("exam", 1, 64), ("test", 0, 64), ("test", 1, 32)])
def test_scenes_that_cannot_be_made(tmp_path: Path, split: str, count: int, side: int) -> None:
    with pytest.raises(ValueError, match=r"expected|must be|there are"):
        write_scenes(tmp_path / "out", split, count, 0, (side, side))
    assert not (tmp_path / "out").exists()


def test_samples_by_name(tmp_path: Path, masks: np.ndarray) -> None:
    samples, total = open_samples("scenes", None, "test", limit=4)
    assert total == 4
    assert len(list(samples)) == 4
    (tmp_path / "empty").mkdir()
    assert open_samples("scenes", tmp_path / "empty", "val", scenes=2)[1] == 6
    write_maskgroups(folder(tmp_path / "set"), "val", rows(masks))
    assert open_samples("scenes", tmp_path / "set", "val")[1] == 2
    assert open_samples("maskgroups", tmp_path / "set", "val", limit=1)[1] == 1
    with pytest.raises(ValueError, match="needs --root"):
        open_samples("maskgroups", None, "val")
    with pytest.raises(ValueError, match="unknown dataset 'nosuch'"):
        open_samples("nosuch", tmp_path, "val")


def test_real_masks_survive_the_format(tmp_path: Path, shared_data: Path) -> None:
    annotations = json.loads((shared_data / "coco128" / "annotations" / "instances_train2017.json").read_text())
    image = annotations["images"][0]
    found = [a["segmentation"] for a in annotations["annotations"] if a["image_id"] == image["id"]]
    size = image["height"], image["width"]
    pool = np.stack([rle.decode(segmentation, size) for segmentation in found])
    file = next((shared_data / "coco128" / "train2017").glob(image["file_name"]))
    (tmp_path / "images").symlink_to(file.parent)
    row = MaskGroupRow("r", file.name, "all", rle.encode(pool), tuple(range(len(pool))), size)
    write_maskgroups(tmp_path, "val", [row])
    sample = MaskGroupsDataset(tmp_path, "val")[0]
    assert np.array_equal(sample.gt_pool.numpy(), pool)
