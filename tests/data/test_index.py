"""Indexes of annotation files: the same records as json.load, made once, shared by processes."""

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest

from maskselect.data.index import Index, Section, open_index

SECTIONS = {
    "image": Section("images"),
    "annotation": Section("annotations", group="image_id"),
}
DATA: dict[str, Any] = {
    "info": {"images": "not these"},
    "annotations": [{"id": 7, "image_id": 2, "area": 1.5}, {"id": 5, "image_id": 1}, {"id": 6, "image_id": 2}],
    "images": [{"id": 2, "file_name": "b.jpg"}, {"id": 1, "file_name": "a.jpg", "x": None}],
}


def _written(folder: Path, data: object) -> Path:
    file = folder / "instances.json"
    file.write_text(json.dumps(data))
    return file


def test_records(tmp_path: Path) -> None:
    index = open_index(_written(tmp_path, DATA), SECTIONS)
    assert list(index.all("annotation")) == DATA["annotations"]
    assert index.keys("image") == [2, 1] and index.count("annotation") == 3
    assert index.get("image", 1) == DATA["images"][1]
    assert [a["id"] for a in index.of_group("annotation", 2)] == [7, 6] and index.of_group("annotation", 9) == []
    assert index.groups("annotation") == [2, 1]
    with pytest.raises(ValueError, match=r"instances\.json has no image with the id 3"):
        index.get("image", 3)


def test_a_list_and_an_object(tmp_path: Path) -> None:
    file = _written(tmp_path, [{"ref_id": "a"}, {"ref_id": "b"}])
    assert open_index(file, {"ref": Section("", key="ref_id")}).keys("ref") == ["a", "b"]
    assert open_index(file, {"ref": Section("", key=None)}).get("ref", 1) == {"ref_id": "b"}
    file = _written(tmp_path, {"a.jpg": {"n": 1}, "b.jpg": {"n": 2}})
    index = open_index(file, {"image": Section("", key="name", values=True)})
    assert index.get("image", "b.jpg") == {"name": "b.jpg", "n": 2}


def test_made_once_and_again_when_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKSELECT_INDEX")
    file = _written(tmp_path, DATA)
    first = open_index(file, SECTIONS)
    assert first.file == tmp_path / "instances.json.index"
    stamp = first.file.stat().st_mtime_ns
    assert open_index(file, SECTIONS).file.stat().st_mtime_ns == stamp
    _written(tmp_path, {**DATA, "images": [{"id": 3}]})
    assert open_index(file, SECTIONS).keys("image") == [3]
    index = tmp_path / "instances.json.index"
    whole = index.read_bytes()
    for damaged in (b"damaged", b"", whole[:-4096], whole[: len(whole) // 2], whole[:4096]):
        index.write_bytes(damaged)
        assert open_index(file, SECTIONS).keys("image") == [3]


def test_where_the_folder_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKSELECT_INDEX")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = _written(tmp_path, DATA)
    (tmp_path / "instances.json.index").mkdir()  # not even root can write there
    assert (tmp_path / "cache") in open_index(file, SECTIONS).file.parents


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"images": [{"id": 1}', "truncated or not JSON"),
        ('{"images": [{"id": 1}, 5]}', r"image number 1 is '5'; expected an object"),
        ('{"images": [{"name": 1}]}', r"image number 0 has no field 'id'"),
        ('{"images": [{"id": [1]}]}', "neither a whole number nor a text"),
        ('{"images": [{"id": 99999999999999999999}]}', "integer overflow"),
        ("\x00\x01", "truncated or not JSON"),
    ],
)
def test_damage_is_one_sentence_and_leaves_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setenv("MASKSELECT_INDEX", str(tmp_path / "indexes"))
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json.*{told}"):
        open_index(tmp_path / "a.json", SECTIONS)
    assert list((tmp_path / "indexes").iterdir()) == []


def _names(index: Index) -> list[str]:
    return [record["file_name"] for record in index.all("image")]


def test_worker_processes_open_it_themselves(tmp_path: Path) -> None:
    index = open_index(_written(tmp_path, DATA), SECTIONS)
    assert _names(index) == ["b.jpg", "a.jpg"]
    assert _names(pickle.loads(pickle.dumps(index))) == ["b.jpg", "a.jpg"]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_names, [index, index]) == [["b.jpg", "a.jpg"]] * 2
