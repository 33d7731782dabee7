"""Generated clips through the evaluator, and through files in ReVOS' format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect import cli
from maskselect.cli import loading
from maskselect.data.video import RevosDataset
from maskselect.evaluation.videos import evaluate_videos, open_videos
from maskselect.predictor import Model
from maskselect.recipes.clip_files import write_clips
from maskselect.scenes.clip_samples import ask_clips
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.facts import ModelFacts
from maskselect.structures.packed_masks import PackedMasks
from maskselect.structures.prediction import ClipGroup
from maskselect.structures.provenance import TrainingData
from maskselect.structures.video import VideoSample, stacked
from tests.systems.tiny import tiny_ras


class Perfect:
    """Answers every prompt of some samples with their masks; prompts of kinds in `wrong` with the whole picture."""

    def __init__(self, samples: list[VideoSample], wrong: tuple[str, ...] = ()) -> None:
        self.samples, self.wrong = {(one.prompt, one.size): one for one in samples}, wrong
        self.references: list[Any] = []

    clip_threshold: float | None = 0.5

    def facts(self) -> ModelFacts:
        return ModelFacts("perfect", training=(TrainingData("scenes-clips", "test", seed=5, count=10),))

    def select_video_many(
        self, video: Clip, prompts: Sequence[str], references: Any = None, frames: Any = None, threshold: Any = None
    ) -> list[ClipGroup]:
        self.references += zip(prompts, references or [], frames or [], strict=False)
        return [self.group(video, self.samples[prompt, video.size]) for prompt in prompts]

    def group(self, video: Clip, sample: VideoSample) -> ClipGroup:
        masks = ClipMasks(len(video), video.size)
        assert sample.masks is not None
        if sample.object_ids or sample.kind in self.wrong:
            number = masks.add()
            for frame in range(len(video)):
                mask = torch.from_numpy(sample.masks[frame])
                masks.put(number, frame, torch.ones_like(mask) if sample.tag in self.wrong else mask)
        none = PackedMasks(np.zeros((0, *video.size), bool))
        return ClipGroup(video, sample.prompt, masks, np.ones(len(masks), np.float32), None, none, ())


TOLD = {"dataset": "scenes-clips", "split": "test", "model_name": "perfect"}


def test_a_perfect_model_scores_100_and_parts_are_measured_apart() -> None:
    samples = open_videos("scenes-clips", None, "test", clips=4, seed=5)
    assert len({sample.video_id for sample in samples}) == 4
    model = Perfect(samples)
    report = evaluate_videos(model, samples, **TOLD, seed=5)
    targets = [sample for sample in samples if sample.object_ids]
    assert report["metrics"]["overall"] == {"samples": len(targets), "J": 100.0, "F": 100.0, "J&F": 100.0}
    assert report["no_target"] == {"samples": len(samples) - len(targets), "N-acc": 100.0}
    assert set(report["by_part"]) == {"motion", "one frame", "reasoning"}
    assert sum(part["samples"] for part in report["by_part"].values()) == len(targets)
    assert set(report["metrics"]) == {"overall", "w/ mask-ref", "w/o mask-ref"}
    assert "seed 5" in report["overlap"][0]
    referring = [sample for sample in samples if sample.references]
    given = {prompt: (masks, frames) for prompt, masks, frames in model.references if masks}
    assert len(given) == len(referring) > 0
    for sample in referring:
        masks, frames = given[sample.prompt]
        assert len(masks) == sample.prompt.count("<mask-ref>") == len(frames) and all(mask.any() for mask in masks)
    wrong = evaluate_videos(Perfect(samples, ("motion", "order", "none")), samples, **TOLD)
    assert wrong["by_part"]["motion"]["J"] < 40 and wrong["by_part"]["one frame"]["J&F"] == 100
    assert wrong["no_target"]["N-acc"] == 0 and wrong["overlap"] == []


def test_files_come_back_through_the_reader_of_revos(tmp_path: Path) -> None:
    path = write_clips(tmp_path / "a", "test-words", 2, 3, frames=4, prompts_per_clip=6)
    samples = list(RevosDataset(tmp_path / "a", "test-words"))
    asked = list(ask_clips("test-words", 3, 2, 4, 6, reference_share=0.0))
    expected = [sample for clip in asked for sample in clip.samples()]
    assert len(samples) == len(expected) == 12
    for one, other in zip(samples, expected, strict=True):
        assert (one.prompt, one.kind, one.tag, one.size) == (other.prompt, other.kind, other.tag, other.size)
        assert one.masks is not None and other.masks is not None and other.foreground is not None
        assert torch.equal(stacked(one.masks), stacked(other.masks)) and one.foreground is not None
        assert torch.equal(stacked(one.foreground), stacked(other.foreground))
        assert (one.kind == "none") == (not one.object_ids) and not other.references
    record = json.loads(path.read_text())["videos"]["test-words-clip-3-0"]
    assert record["frames"] == ["00000", "00001", "00002", "00003"]
    again = write_clips(tmp_path / "b", "test-words", 2, 3, frames=4, prompts_per_clip=6)
    for file in sorted(p.relative_to(path.parent) for p in path.parent.rglob("*") if p.is_file()):
        assert (path.parent / file).read_bytes() == (again.parent / file).read_bytes()
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        write_clips(tmp_path / "a", "test", 1, 0)
    with pytest.raises(ValueError, match="a clip of 2 frames"):
        write_clips(tmp_path / "c", "test", 1, 0, frames=2)
    assert not (tmp_path / "c").exists()
    report = evaluate_videos(Perfect(samples), samples, **TOLD | {"split": "test-words"})
    assert report["metrics"]["overall"]["J&F"] == 100 and "by_part" in report


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    made = ["make_scenes", "--output", str(tmp_path / "clips"), "--split", "val", "--count", "1", "--seed", "1"]
    assert cli.main([*made, "--frames", "3"]) == 2 and "--frames belongs to --clips" in capsys.readouterr().err
    assert cli.main([*made, "--clips", "--size", "64"]) == 2
    assert cli.main([*made, "--clips", "--frames", "3"]) == 0
    monkeypatch.setattr(loading, "load_model", lambda options: Model(tiny_ras(), threshold=0.0))
    command = ["evaluate", "--model", "ras", "--dataset", "scenes-clips", "--split", "test", "--limit", "3"]
    assert cli.main([*command, "--seed", "5", "--output", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["samples"] == 3 and report["protocol"]["name"] == "scenes-clips" and report["seed"] == 5
    assert "J&F" in capsys.readouterr().out
