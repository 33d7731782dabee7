from pathlib import Path

import pytest

from maskselect.reports.files import answer_paths, output_folder, refuse_overwriting, write_answers, write_json
from tests.structures.test_values import group


def test_the_output_folder_is_tried_first_and_removed_when_nothing_comes(tmp_path: Path) -> None:
    with output_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
    assert not (tmp_path / "a").exists()
    with output_folder(tmp_path / "a" / "b") as folder:
        write_json({"x": 1}, folder / "r.json")
    assert (tmp_path / "a" / "b" / "r.json").is_file()


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(ValueError, match="is not writable"), output_folder(folder):
            pass


def test_an_answer_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_answers([group()], tmp_path, Path("some/cup.jpg"), "ras")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cup.json", "cup.mask.png", "cup.overlay.png"]
    assert all(path.is_file() for path in answer_paths(tmp_path, "cup"))

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("maskselect.reports.files.json_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_answers([group()], tmp_path, Path("other.jpg"), "ras")
    assert len(list(tmp_path.iterdir())) == 3


def test_an_answer_never_takes_the_place_of_an_image(tmp_path: Path) -> None:
    refuse_overwriting([tmp_path / "a.png"], tmp_path)
    with pytest.raises(ValueError, match=r"would overwrite the image .*a\.mask\.png"):
        refuse_overwriting([tmp_path / "a.png", tmp_path / "a.mask.png"], tmp_path)
