"""Where images are taken from: every form gives the same pictures, and what is not as it should be is told."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskselect.recipes.image_sources import open_dataset, open_images
from tests.recipes.test_proposals import ROOT, in_parquet, in_tars, pictures, propose, rows


def test_every_form_of_the_same_images_gives_the_same_rows(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 10)
    propose(images, tmp_path / "folder")
    expected = {key.removesuffix(".png"): row | {"key": ""} for key, row in rows(tmp_path / "folder").items()}
    forms = {
        "tar": in_tars(images, tmp_path / "a"),
        "bytes": in_parquet(images, tmp_path / "b", nested=False),
        "struct": in_parquet(images, tmp_path / "c", nested=True),
    }
    for name, folder in forms.items():
        made = propose(open_images(folder), tmp_path / name)
        assert made.failed == {}
        assert {key: row | {"key": ""} for key, row in rows(tmp_path / name).items()} == expected, name
    unnamed = open_images(in_parquet(images, tmp_path / "d", nested=False, keys=False))
    assert [unit["key"] for unit in unnamed.units()][6:8] == ["train-0.parquet/6", "train-1.parquet/0"]
    assert len(open_images(forms["tar"] / "00001.tar").units()) == 4
    assert len(open_images(forms["bytes"] / "train-1.parquet").units()) == 3


def test_of_two_pictures_under_a_key_the_photo_is_taken(tmp_path: Path) -> None:
    colours = {"0.png": (255, 0, 0), "0.jpg": (0, 0, 255), "a/1.png": (0, 255, 0)}
    with tarfile.open(tmp_path / "x.tar", "w") as packed:
        for name, colour in colours.items():
            stream = io.BytesIO()
            Image.new("RGB", (8, 8), colour).save(stream, format="PNG" if name.endswith("png") else "JPEG")
            info = tarfile.TarInfo(name)
            info.size = len(stream.getvalue())
            packed.addfile(info, io.BytesIO(stream.getvalue()))
    source = open_images(tmp_path)
    units = {unit["key"]: unit for unit in source.units()}
    assert units.keys() == {"0", "a/1"}
    assert source.load(units["0"])[0, 0, 2] > 250 and source.load(units["a/1"])[0, 0, 1] == 255


def test_data_sets_by_name(tmp_path: Path) -> None:
    source = open_dataset("own", ROOT / "examples/own", "val")
    keys = [unit["key"] for unit in source.units()]
    assert propose(source, tmp_path / "own").done == len(keys) == len(set(keys)) > 0
    assert list(rows(tmp_path / "own")) == keys
    scenes = open_dataset("scenes", None, "test", scenes=2, seed=3)
    assert propose(scenes, tmp_path / "scenes").done == 2
    assert {(row["height"], row["width"]) for row in rows(tmp_path / "scenes").values()} == {(256, 256)}
    with pytest.raises(ValueError, match="unknown dataset 'cocoo'"):
        open_dataset("cocoo", tmp_path, "val")
    with pytest.raises(ValueError, match="'coco' needs --root"):
        open_dataset("coco", None, "val2017")
    with pytest.raises(ValueError, match="no split 'x'"):
        open_dataset("scenes", None, "x")


def test_sources_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 4)
    (tmp_path / "x.txt").write_text("text")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"x.txt is neither \.tar nor \.parquet"):
        open_images(tmp_path / "x.txt")
    for name, told in (("gone", "does not exist"), ("none", "holds no image")):
        with pytest.raises(FileNotFoundError, match=told):
            open_images(tmp_path / name).units()
    tar = in_tars(images, tmp_path / "tar") / "00000.tar"
    (tar.parent / "again.tar").write_bytes(tar.read_bytes())
    with pytest.raises(ValueError, match="two images have the key '0000'"):
        open_images(tar.parent).units()
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(ValueError, match="truncated or no uncompressed tar"):
        open_images(tar).units()
    file = in_parquet(images, tmp_path / "parquet", nested=False) / "train-0.parquet"
    with pytest.raises(ValueError, match=r"two images have the key 'a text'.*--key-column"):
        open_images(file, key_column="text").units()
    with pytest.raises(ValueError, match="has no column 'name'; its columns are image, text, image_id"):
        open_images(file, key_column="name")
    with pytest.raises(ValueError, match=r"'text' of .* holds no bytes; expected --image-column to be one of: image"):
        open_images(file, "text")
    pq.write_table(pa.table({"a": [b"x"], "b": [b"y"]}), file)
    with pytest.raises(ValueError, match=r"does not tell its image column; .* one of: a, b"):
        open_images(file)
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), file)
    assert "expected the bytes" in propose(open_images(file), tmp_path / "out").failed["train-0.parquet/0"]
    file.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="truncated or not parquet"):
        open_images(file)
