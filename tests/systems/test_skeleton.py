"""A new system in one file of its own predicts, evaluates, reports, trains, answers on a clip, saves and loads."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

import maskselect
from maskselect.evaluation.samples import build_report, score_samples
from maskselect.predictor import Model
from maskselect.reports.files import write_answers
from maskselect.reports.page import draw_page
from maskselect.reports.table import print_report
from maskselect.scenes.groups import SceneGroups
from maskselect.scenes.samples import ask_scenes
from maskselect.systems.loading import default_prompter
from maskselect.training.callbacks import SaveWeights, ValidationPictures
from maskselect.training.data import GroupsData
from maskselect.training.module import TrainingModule
from tests.systems import skeleton
from tests.systems.skeleton import Halves

PICTURE = np.zeros((40, 60, 3), np.uint8)


def test_it_is_short() -> None:
    assert len(inspect.getsource(skeleton).splitlines()) <= 60


def test_predicts(tmp_path: Path) -> None:
    model = Model(Halves(), name="halves")
    group = model.select(PICTURE, "the mug")
    assert group.mask[:, :30].all() and not group.mask[:, 30:].any()
    assert group.candidates is group.threshold is None and group.text == "the left half for the mug"
    write_answers([group], tmp_path, Path("picture.png"), "halves")
    record = json.loads((tmp_path / "picture.json").read_text())
    assert record["candidates"] is None and record["threshold"] is None and record["text"] == group.text
    assert (tmp_path / "picture.overlay.png").is_file()
    with pytest.raises(ValueError, match="uses no threshold"):
        model.select(PICTURE, "the mug", threshold=0.5)
    with pytest.raises(ValueError, match="no candidates"):
        model.select_many(PICTURE, ["the mug"], extra_candidates=np.ones((1, 40, 60), bool))


def test_takes_boxes_by_the_shipped_prompter() -> None:
    model = Model(Halves(), prompter=default_prompter(Halves(), "cpu"))
    picture = PICTURE.copy()
    picture[10:30, 20:40] = 255
    group = model.select(picture, "left of <mask-ref>", [maskselect.BoxRef((18, 8, 42, 32))])
    assert group.references.shape == (1, 40, 60) and group.references.any()


def test_answers_on_a_clip() -> None:
    clip = Model(Halves()).select_video([PICTURE] * 3, "the mug")
    assert len(clip) == 1 and clip.masks.shape == (1, 3, 40, 60)
    assert np.array_equal(clip.frame(2), Model(Halves()).select(PICTURE, "the mug").masks)


def test_is_evaluated_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    samples = [sample for scene in ask_scenes("val", 4, 2) for sample in scene.samples()]
    rows = list(score_samples(Model(Halves()), samples))
    report = build_report(rows, "scenes", "val", "halves", with_gt=False, protocol="maskselect")
    overall = report["metrics"]["overall"]
    assert overall["gIoU"] is not None and overall["oracle_cIoU"] is None and report["candidates_per_image"] is None
    assert report["undecoded"] == 0
    print_report(report)
    assert "halves" in capsys.readouterr().out and "halves" in draw_page(report, rows, {})


def test_trains_saves_and_loads(tmp_path: Path) -> None:
    card = {"config": {"class_path": "tests.systems.skeleton.Halves", "init_args": {}}}
    trainer = Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=TensorBoardLogger(tmp_path, "tensorboard"),
        callbacks=[SaveWeights(tmp_path, 1, card), ValidationPictures()],
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=2,
    )
    data = GroupsData(SceneGroups("train", 0, 4), SceneGroups("val", 0, 2), batch_size=2, cache_dir=None)
    learner = Halves()
    trainer.fit(TrainingModule(learner, lr=0.1), data)
    assert float(learner.left.detach()) != 0
    model = maskselect.load(tmp_path / "halves.safetensors", device="cpu")
    assert model.name == "halves" and isinstance(model.system, Halves)
    torch.testing.assert_close(model.system.left, learner.left, atol=1e-3, rtol=1e-3)
    assert len(model.select(PICTURE, "the mug")) == 1
