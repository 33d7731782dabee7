"""The threshold: what a sweep tells is what evaluating at each threshold tells, and the choice follows its rule."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskselect import cli
from maskselect.backends.checkpoints import change_card, read_card, read_tensors, write_checkpoint
from maskselect.cli import loading
from maskselect.evaluation.calibration import CLIP_THRESHOLDS, THRESHOLDS, choose, sweep, sweep_clips
from maskselect.evaluation.run import evaluate
from maskselect.evaluation.videos import evaluate_videos
from maskselect.predictor import Model
from maskselect.scenes.clip_samples import ask_clips
from maskselect.scenes.samples import ask_scenes
from tests.systems.tiny import tiny_llmseg, tiny_ras


def _samples() -> list[Any]:
    return [sample for scene in ask_scenes("val", 3, 5) for sample in scene.samples()]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Quarters of the image as candidates, with scores all over the range: an untrained model's lie together."""
    system = tiny_ras()

    def answer(read: object, texts: list[str], references: object, threshold: float) -> tuple[Tensor, Tensor]:
        draws = [torch.rand(4, generator=torch.Generator().manual_seed(zlib.crc32(text.encode()))) for text in texts]
        return torch.stack(draws), torch.stack(draws) >= threshold

    monkeypatch.setattr(system, "score_candidates", answer)
    return Model(system)


def test_a_sweep_is_an_evaluation_at_each_threshold(model: Model) -> None:
    found = sweep(model, _samples())
    assert list(found) == list(THRESHOLDS)
    assert len({json.dumps(row) for row in found.values()}) > 20
    for threshold in (0.1, 0.3, 0.5, 0.8):
        report = evaluate(Model(model.system, threshold), _samples())
        expected = {k: v for k, v in report["metrics"]["overall"].items() if not k.startswith("oracle")}
        assert {k: v for k, v in found[threshold].items() if not k.startswith("oracle")} == expected


def test_a_sweep_of_clips_is_an_evaluation_at_each_threshold(model: Model) -> None:
    samples = [sample for clip in ask_clips("val", 0, 3, frames=4) for sample in clip.samples()]
    assert {sample.kind for sample in samples} >= {"none", "referring"}
    found = sweep_clips(model, samples, "scenes-clips")
    assert list(found) == list(CLIP_THRESHOLDS) and len({json.dumps(row) for row in found.values()}) > 3
    told = {"dataset": "scenes-clips", "split": "val", "model_name": "tiny"}
    for threshold in (0.3, 0.6, 0.95):
        report = evaluate_videos(Model(model.system, 0.5, clip_threshold=threshold), samples, **told)
        row, absent = found[threshold], report["no_target"]
        assert row["J&F"] == pytest.approx(report["metrics"]["overall"]["J&F"], abs=0.02)
        assert row["N-acc"] == absent["N-acc"] and row["samples"] == len(samples)
        both = row["J&F"] * (len(samples) - absent["samples"]) + row["N-acc"] * absent["samples"]
        assert row["all"] == pytest.approx(both / len(samples), abs=0.02)
    with pytest.raises(ValueError, match="answers at any threshold"):
        sweep_clips(Model(tiny_llmseg(strategy="top_iou")), samples, "scenes-clips")
    with pytest.raises(ValueError, match="no sample"):
        sweep_clips(model, [], "scenes-clips")


def test_clips_have_a_threshold_of_their_own(model: Model) -> None:
    own = Model(model.system, 0.2, clip_threshold=0.9)
    clip = next(iter(ask_clips("val", 0, 1, frames=3))).clip
    low, high = Model(model.system, 0.2), Model(model.system, 0.9)
    assert own.select(clip[0], "the cup") == low.select(clip[0], "the cup")
    assert own.select_video(clip, "the cup") == high.select_video(clip, "the cup")
    assert own.select_video(clip, "the cup", threshold=0.2) == low.select_video(clip, "the cup")
    assert (
        low.clip_threshold == 0.2
        and Model(tiny_llmseg(strategy="top_iou"), 0.5, clip_threshold=0.9).clip_threshold is None
    )


FOUND: dict[float, dict[str, float | None]] = {
    0.4: {"F1": 80.0, "N-acc": 50.0},
    0.6: {"F1": 82.0, "N-acc": 70.0},
    0.8: {"F1": 79.0, "N-acc": 90.0},
    0.9: {"F1": 70.0, "N-acc": 95.0},
}


@pytest.mark.parametrize("strategy", ["top_iou", "iop_or_top_iou"])
def test_what_answers_at_any_threshold_is_refused(strategy: str) -> None:
    with pytest.raises(ValueError, match="answers at any threshold"):
        sweep(Model(tiny_llmseg(strategy=strategy)), _samples()[:1])


def test_choice() -> None:
    assert choose(FOUND) == 0.6
    assert choose(FOUND, 90) == 0.8
    with pytest.raises(ValueError, match=r"N-acc of 99: the highest N-acc is 95\.0"):
        choose(FOUND, 99)
    with pytest.raises(ValueError, match="no prompt without targets"):
        choose({0.5: {"F1": 1.0, "N-acc": None}}, 10)
    with pytest.raises(ValueError, match="no sample"):
        sweep(Model(tiny_ras()), [])


def test_the_card_gets_it(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, {"weight": torch.ones(2)}, {"system": "ras", "config": {}, "threshold": 0.5, "name": "tiny"})
    monkeypatch.setattr(loading, "load_model", lambda options: model)
    asked = ["--model", str(path), "--dataset", "scenes", "--scenes", "3", "--output", str(tmp_path / "table.json")]
    assert cli.tool("calibrate", asked) == 0
    assert read_card(path)["threshold"] == 0.5
    assert cli.tool("calibrate", [*asked, "--write"]) == 0
    card = read_card(path)
    found = {float(t): row for t, row in json.loads((tmp_path / "table.json").read_text()).items()}
    assert card["threshold"] == choose(found) and card["name"] == "tiny"
    data = {"dataset": "scenes", "split": "val", "seed": 0}
    assert card["threshold_from"] == data | {"samples": 9, "least_n_acc": 0.0}
    assert cli.tool("calibrate", [*asked[:-2], "--refiner", "snap", "--write"]) == 0
    assert read_card(path)["threshold_from"]["refiner"] == "snap"
    assert read_tensors(path)["weight"].tolist() == [1.0, 1.0]
    assert [p.name for p in tmp_path.glob("*.part")] == []
    threshold = read_card(path)["threshold"]
    clips = ["--model", str(path), "--dataset", "scenes-clips", "--scenes", "1", "--limit", "2", "--write"]
    assert cli.tool("calibrate", clips) == 0
    card = read_card(path)
    assert card["clip_threshold"] in CLIP_THRESHOLDS and card["threshold"] == threshold
    assert card["clip_threshold_from"]["dataset"] == "scenes-clips" and card["clip_threshold_from"]["samples"] == 2


def test_a_card_that_is_not_there_cannot_be_changed(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        change_card(tmp_path / "nowhere.safetensors", {})
    monkeypatch.setattr(loading, "load_model", lambda options: model)
    assert cli.tool("calibrate", ["--model", "hf://a/b", "--dataset", "scenes", "--scenes", "3", "--write"]) == 2
    assert "hf://a/b" in capsys.readouterr().err
