"""After `propose` on a data set or a folder of images, predict, evaluate, recall, calibrate and fit run no proposer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from maskselect import cli
from maskselect.data.groups import DatasetGroups
from maskselect.predictor import Model
from maskselect.proposers.everything import EverythingProposer
from maskselect.proposers.loading import load_proposer
from maskselect.recipes.scene_files import write_scenes
from maskselect.training.data import GroupsData
from maskselect.training.module import TrainingModule
from tests.systems.tiny import tiny_ras

SAM = {"class_path": "maskselect.proposers.sam.SamProposer", "init_args": {"checkpoint": "sam", "points_per_side": 3}}
SNAPPING = {"class_path": "maskselect.proposers.snapping.SnappingProposer", "init_args": {"proposer": SAM}}


def run(command: str, *words: object) -> None:
    assert cli.main([command, *map(str, words)]) == 0


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scenes with prompts, a proposer's config, and a tiny model with that proposer under every name."""
    write_scenes(tmp_path / "data", "val", 2, 0, (64, 80), 2)
    (tmp_path / "proposer.yaml").write_text(yaml.safe_dump(SNAPPING))
    monkeypatch.setattr("maskselect.predictor.load", lambda *_, **__: Model(_system(tmp_path)))
    return tmp_path


def _system(folder: Path) -> torch.nn.Module:
    return tiny_ras(load_proposer(str(folder / "proposer.yaml"), "cpu"))


def _refuse(*_: Any) -> None:
    raise AssertionError("the proposer ran")


@pytest.mark.parametrize("as_folder", [False, True])
def test_no_proposer_runs_after_propose(
    as_folder: bool, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, stored, proposer = world / "data", world / "proposals", ["--proposer", world / "proposer.yaml"]
    samples = ["--dataset", "scenes", "--root", data, "--split", "val"]
    run("evaluate", *samples, "--output", world / "before.json")
    run("recall", *samples, *proposer, "--output", world / "ceiling.json")
    run("propose", *(["--images", data / "images"] if as_folder else samples), *proposer, "--output", stored)
    monkeypatch.setattr(EverythingProposer, "propose", _refuse)
    with pytest.raises(AssertionError, match="the proposer ran"):
        run("recall", *samples, *proposer)
    run("evaluate", *samples, "--output", world / "after.json", "--proposals", stored)
    run("recall", *samples, *proposer, "--output", world / "stored.json", "--proposals", stored)
    run("calibrate", *samples, "--keep-candidates", stored)
    run("predict", "--image", data / "images", "--prompt", "stars", "--output", world / "out", "--proposals", stored)
    for before, after in (("before", "after"), ("ceiling", "stored")):
        reports = [json.loads((world / f"{name}.json").read_text()) for name in (before, after)]
        assert len({json.dumps(report | {"latency": None}) for report in reports}) == 1
    assert _fit(world, proposals=stored, cache_dir=None) == 1
    assert _fit(world, proposals=stored, cache_dir=world / "features") == 1
    assert not (stored / "single").exists()
    with pytest.raises(AssertionError, match="the proposer ran"):
        _fit(world, cache_dir=None)


def _fit(world: Path, **options: Any) -> int:
    """Train for one step, with validation; the steps that were done."""
    source = DatasetGroups("maskgroups", world / "data", "val")
    data = GroupsData(source, source, batch_size=2, prompts_per_image=2, **options)
    trainer = Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=1,
    )  # fmt: skip
    trainer.fit(TrainingModule(_system(world), lr=1e-3), data)
    return trainer.global_step


def test_one_command_fills_what_the_next_one_reads(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first evaluation stores candidates; pictures count by their pixels, whatever their files are called."""
    samples = ["--dataset", "scenes", "--root", world / "data", "--split", "val"]
    run("evaluate", *samples, "--output", world / "one.json", "--proposals", world / "stored")
    monkeypatch.setattr(EverythingProposer, "propose", _refuse)
    (world / "renamed").mkdir()
    for number, path in enumerate(sorted((world / "data" / "images").iterdir())):
        shutil.copy(path, world / "renamed" / f"{number}{path.suffix}")
    words = ["--image", world / "renamed", "--prompt", "stars", "--output", world / "out"]
    run("predict", *words, "--proposals", world / "stored")
    assert len([*(world / "out").glob("*.mask.png")]) == 2
