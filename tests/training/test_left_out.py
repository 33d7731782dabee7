"""Runs go on past images that cannot be used, name them at the end, and end with status 1."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from maskselect import cli
from maskselect.data.check import OTHER_SIZE, check
from maskselect.data.groups import DatasetGroups
from maskselect.data.own import open_own
from maskselect.structures.groups import UnusableImageError
from maskselect.structures.left_out import LeftOut
from tests.broken_images import GOOD, REASONS, write_own
from tests.systems.tiny import SIZES, tiny_ras
from tests.training.batches import batch_of


def test_training_does_not_stretch_masks_of_another_frame(tmp_path: Path) -> None:
    source = DatasetGroups("own", write_own(tmp_path, (1, 4)), "train")
    assert source.load(0).masks.shape == (1, 8, 12)
    for read in (source.load, source.version):
        with pytest.raises(ValueError, match=r"masks of \[8, 12\], image .*4\.jpg of \[12, 8\] .*EXIF orientation"):
            read(1)
    found = check(open_own(tmp_path))
    assert found.problems == {OTHER_SIZE: 1} and "EXIF orientation" in found.examples[OTHER_SIZE][0]


def batch(root: Path, left_out: LeftOut, seed: int = 5) -> Any:
    source = DatasetGroups("own", root, "train")
    items = [(number, seed + number) for number in range(len(source))]
    return batch_of(tiny_ras(), source, items, 2, left_out=left_out)


def test_another_image_comes_in_place_of_one_that_cannot_be_used(tmp_path: Path) -> None:
    write_own(tmp_path)
    left_out = LeftOut()
    first, again = batch(tmp_path, left_out), batch(tmp_path, LeftOut())
    assert sorted(left_out.reasons) == [f"own/{number}" for number in REASONS]
    for number, told in REASONS.items():
        assert re.search(told, left_out.reasons[f"own/{number}"])
    assert len(first.candidate_features) == 7  # as many as were drawn
    assert torch.equal(first.candidate_features, again.candidate_features) and first.prompts == again.prompts
    good = batch(write_own(tmp_path / "good", GOOD), LeftOut())
    assert torch.equal(first.candidate_features[:3], good.candidate_features)  # the usable images are the same


def test_a_source_without_a_usable_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableImageError, match=r"image own/5"):
        batch(write_own(tmp_path, (5, 6)), LeftOut())


def config(folder: Path, root: Path, **more: Any) -> Path:
    """A tiny run on own data."""
    own = {"class_path": "maskselect.data.groups.DatasetGroups", "init_args": {"dataset": "own", "root": str(root)}}
    encoder = {"class_path": "maskselect.encoders.position.SinusoidEncoder", "init_args": {"grid": 8, "frequencies": 3}}
    ensemble = {"class_path": "maskselect.encoders.ensemble.EncoderEnsemble", "init_args": {"encoders": [encoder]}}
    task = {
        "proposer": {"class_path": "maskselect.proposers.regions.RegionProposer"},
        "encoders": ensemble,
        "lmm": {"class_path": "maskselect.lmm.llava.Llava", "init_args": {"sizes": asdict(SIZES)}},
    }
    trainer = {"max_steps": 4, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer |= {"enable_model_summary": False, "log_every_n_steps": 1, "val_check_interval": 2}
    data = {"train": own, "val": own, "batch_size": 3, "cache_dir": str(folder / "kept")}
    content = {
        "seed_everything": 0,
        "output": str(folder / "run"),
        "model": {"task": {"class_path": "maskselect.systems.ras.RAS", "init_args": task}},
        "data": {"class_path": "maskselect.training.data.GroupsData", "init_args": data},
        "trainer": trainer | more,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_fit_and_features_go_on_and_name_what_they_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's use of it
    path = config(tmp_path, write_own(tmp_path / "own"))
    assert cli.main(["features", "-c", str(path), "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "3 of 14 images computed, the others were there or were left out" in captured.out
    told = captured.err
    assert cli.main(["fit", "-c", str(path)]) == 1
    told_by_fit = capsys.readouterr().err
    for said in (told, told_by_fit):
        assert "error: 4 images were left out:" in said and "Traceback" not in said
        assert all(f"own/{number}" in said for number in REASONS)
    assert (tmp_path / "run/ras.safetensors").is_file()
    assert cli.main(["fit", "-c", str(config(tmp_path, write_own(tmp_path / "good", GOOD)))]) == 0
    assert "left out" not in capsys.readouterr().err
