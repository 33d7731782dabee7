"""Videos through the evaluator: a perfect answer scores 100, an empty one less, and a broken video is named."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect import cli
from maskselect.cli import loading
from maskselect.evaluation.videos import evaluate_videos, open_videos
from maskselect.predictor import Model
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.facts import ModelFacts
from maskselect.structures.left_out import LeftOut
from maskselect.structures.packed_masks import PackedMasks
from maskselect.structures.prediction import ClipGroup
from tests.data.test_video import mevis, revos
from tests.systems.test_refining import Corner
from tests.systems.tiny import tiny_ras


class Told:
    """Answers with given masks (T, H, W), prompt by prompt."""

    def __init__(self, masks: dict[str, np.ndarray]) -> None:
        self.masks = masks
        self.calls: list[list[str]] = []

    def facts(self) -> ModelFacts:
        return ModelFacts("told")

    def select_video_many(self, video: Clip, prompts: Sequence[str]) -> list[ClipGroup]:
        self.calls.append(list(prompts))
        return [self.group(video, prompt) for prompt in prompts]

    def group(self, video: Clip, prompt: str) -> ClipGroup:
        masks = ClipMasks(len(video), video.size)
        number = masks.add()
        for frame, mask in enumerate(self.masks[prompt]):
            masks.put(number, frame, torch.from_numpy(mask))
        none = PackedMasks(np.zeros((0, *video.size), bool))
        return ClipGroup(video, prompt, masks, np.ones(1, np.float32), None, none, ())


@pytest.mark.parametrize(("name", "make"), [("mevis", mevis), ("revos", revos)])
def test_what_is_right_scores_100_and_what_is_empty_less(name: str, make: Any, tmp_path: Path) -> None:
    split = "valid_u" if name == "mevis" else "valid"
    samples = open_videos(name, make(tmp_path), split)
    truth = {s.prompt: np.stack([s.masks[t] for t in range(len(s.frames))]) for s in samples if s.masks is not None}
    told = {"dataset": name, "split": split, "model_name": "told"}
    model = Told(truth)
    report = evaluate_videos(model, samples, **told)
    assert report["metrics"]["overall"]["J&F"] == 100 and report["samples"] == len(samples)
    assert len(model.calls) == 1  # the expressions of one video together
    empty = evaluate_videos(Told({prompt: np.zeros_like(m) for prompt, m in truth.items()}), samples, **told)
    assert empty["metrics"]["overall"]["J"] < 50


def test_a_video_without_a_frame_is_left_out_and_named(tmp_path: Path) -> None:
    samples = open_videos("mevis", mevis(tmp_path), "valid_u")
    samples[0].frames[1].write_bytes(b"no picture")
    left_out = LeftOut()
    with pytest.raises(ValueError, match="none of the"):
        evaluate_videos(
            Model(tiny_ras()), samples, dataset="mevis", split="valid_u", model_name="tiny", left_out=left_out
        )
    assert len(left_out.reasons) == len(samples)


def test_the_command_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(loading, "load_model", lambda options: Model(tiny_ras(), threshold=0.0))
    command = ["evaluate", "--model", "ras", "--dataset", "mevis", "--root", str(mevis(tmp_path / "data"))]
    command += ["--split", "valid_u", "--output", str(tmp_path / "report.json")]
    assert cli.main(command) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["protocol"]["name"] == "mevis" and 0 <= report["metrics"]["overall"]["J&F"] <= 100
    assert "J&F" in capsys.readouterr().out
    command[2] = "llmseg"
    assert cli.main(command) == 2  # the report of another model is there
    command[2] = "ras"
    monkeypatch.setattr(loading, "load_model", lambda options: Model(tiny_ras(), threshold=0.0, refiner=Corner()))
    assert report["refiner"] is None and cli.main(command) == 2  # the report is without a refiner
    assert cli.main([*command, "--overwrite"]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["refiner"] == "corner" and cli.main(command) == 0
