"""Videos through the evaluator: a perfect answer scores 100, an empty one less, and a broken video is named."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect import cli
from maskselect.cli import loading
from maskselect.data.video_writer import AnswerWriter, davis_palette
from maskselect.evaluation.videos import evaluate_videos, open_submission, open_videos
from maskselect.ops import rle
from maskselect.predictor import Model
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.facts import ModelFacts
from maskselect.structures.left_out import LeftOut
from maskselect.structures.packed_masks import PackedMasks
from maskselect.structures.prediction import ClipGroup
from maskselect.structures.video import VideoSample, stacked
from tests.data.test_video import FIRST, FRAMES, SECOND, SIZE, davis, mevis, revos, write, youtube
from tests.systems.test_refining import Corner
from tests.systems.tiny import tiny_ras


class Told:
    """Answers with given masks (T, H, W), prompt by prompt."""

    def __init__(self, masks: dict[str, np.ndarray], scores: dict[str, float] | None = None) -> None:
        self.masks, self.scores = masks, scores or {}
        self.calls: list[list[str]] = []

    clip_threshold: float | None = 0.5

    def facts(self) -> ModelFacts:
        return ModelFacts("told")

    def select_video_many(
        self, video: Clip, prompts: Sequence[str], references: Any = None, frames: Any = None, threshold: Any = None
    ) -> list[ClipGroup]:
        assert references is None and frames is None
        self.calls.append(list(prompts))
        return [self.group(video, prompt) for prompt in prompts]

    def group(self, video: Clip, prompt: str) -> ClipGroup:
        masks = ClipMasks(len(video), video.size)
        number = masks.add()
        for frame, mask in enumerate(self.masks[prompt]):
            masks.put(number, frame, torch.from_numpy(mask))
        none = PackedMasks(np.zeros((0, *video.size), bool))
        scores = np.full(1, self.scores.get(prompt, 1.0), np.float32)
        return ClipGroup(video, prompt, masks, scores, None, none, ())


@pytest.mark.parametrize(("name", "make"), [("mevis", mevis), ("revos", revos)])
def test_what_is_right_scores_100_and_what_is_empty_less(name: str, make: Any, tmp_path: Path) -> None:
    split = "valid_u" if name == "mevis" else "valid"
    samples = open_videos(name, make(tmp_path), split)
    truth = {s.prompt: np.stack([s.masks[t] for t in range(len(s.frames))]) for s in samples if s.masks is not None}
    told: dict[str, Any] = {"dataset": name, "split": split, "model_name": "told"}
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


class Refuses(Model):
    """A model of the same name and weights that may not be asked again."""

    def select_video_many(self, *args: Any, **kwargs: Any) -> list[ClipGroup]:
        raise AssertionError("answered again")


def submit(monkeypatch: pytest.MonkeyPatch, root: Path, kind: type[Model] = Model, /, **options: object) -> int:
    monkeypatch.setattr(loading, "load_model", lambda options: kind(tiny_ras(), threshold=0.0))
    words = ["evaluate", "--model", "ras", "--root", str(root), "--output", str(root.parent / "report.json")]
    return cli.main([*words, *(str(word) for name, value in options.items() for word in (f"--{name}", value))])


# The layouts: https://youtube-vos.org/dataset/rvos/ and MeViS' README ask for these zips.
@pytest.mark.parametrize(
    ("name", "make", "folder"),
    [("ref-youtube-vos", youtube, "Annotations/b/0"), ("mevis", lambda root: mevis(root, "valid"), "a/0")],
)
def test_a_split_without_public_masks_gives_a_zip(
    name: str, make: Any, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    root, archive = make(tmp_path / "data"), tmp_path / "answers.zip"
    command: dict[str, Any] = {"dataset": name, "split": "valid"}
    assert submit(monkeypatch, root, **command) == 2 and "--submission" in capsys.readouterr().err
    command["submission"] = str(archive)
    assert submit(monkeypatch, root, **command) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"] == {"overall": {}} and "not public" in report["no_metrics"]
    with zipfile.ZipFile(archive) as zipped:
        assert {f"{folder}/{frame}.png" for frame in FRAMES} <= set(zipped.namelist())
        assert len(zipped.namelist()) == 3 * report["samples"]
        with zipped.open(f"{folder}/00005.png") as file, Image.open(file) as picture:
            assert picture.size == SIZE[::-1] and set(np.unique(np.array(picture))) <= {0, 255}
    archive.unlink()
    assert submit(monkeypatch, root, Refuses, **command) == 0 and archive.is_file()  # finished answers are kept
    capsys.readouterr()
    assert submit(monkeypatch, root, **command | {"seed": 3}) == 2
    assert "holds other files than the answers of this model" in capsys.readouterr().err


def test_masks_that_are_read_again_score_the_same(tmp_path: Path) -> None:
    samples = open_videos("revos", revos(tmp_path / "data"), "valid")
    model = Told({s.prompt: stacked(s.masks).numpy() for s in samples if s.masks is not None})
    told: dict[str, Any] = {"dataset": "revos", "split": "valid", "model_name": "told"}
    archive, plain = tmp_path / "answers.json", evaluate_videos(model, samples, **told)
    for _ in range(2):
        writer = open_submission(archive, "revos", {"model": "told"})
        report = evaluate_videos(model, samples, **told, submission=writer)
        assert report["metrics"] == plain["metrics"] and report["no_target"] == plain["no_target"]
    assert len(model.calls) == 2
    answers = json.loads(writer.pack(samples, archive).read_text())
    assert list(answers) == ["x/a"] and list(answers["x/a"]) == ["0", "1", "2"]
    assert answers["x/a"]["0"][2] is None and np.array_equal(rle.decode(answers["x/a"]["0"][1]), FIRST[1])
    (tmp_path / "answers/x/a/1.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.json is not there"):
        writer.pack(samples, tmp_path / "again.json")
    assert not (tmp_path / "again.json").exists()


def test_an_interrupted_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = open_videos("mevis", mevis(tmp_path / "data"), "valid_u")
    model = Told({s.prompt: stacked(s.masks).numpy() for s in samples if s.masks is not None})
    told: dict[str, Any] = {"dataset": "mevis", "split": "valid_u", "model_name": "told"}
    write_one = AnswerWriter.write

    def interrupted(writer: AnswerWriter, sample: VideoSample, masks: np.ndarray) -> Path:
        if sample is samples[1]:
            raise KeyboardInterrupt
        return write_one(writer, sample, masks)

    writer = open_submission(tmp_path / "a", "mevis", {})
    with monkeypatch.context() as patch:
        patch.setattr(AnswerWriter, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate_videos(model, samples, **told, submission=writer)
    report = evaluate_videos(model, samples, **told, submission=open_submission(tmp_path / "a", "mevis", {}))
    assert model.calls == [[s.prompt for s in samples], [s.prompt for s in samples[1:]]]
    assert report["metrics"]["overall"]["J&F"] == 100 and report["samples"] == len(samples)


def test_ref_davis17_is_written_as_palette_pngs_and_scored_by_both_protocols(tmp_path: Path) -> None:
    samples = open_videos("ref-davis17", davis(tmp_path / "data"), "valid")
    both = FIRST | SECOND  # the answer about the first object takes in the second
    masks = {s.prompt: both if s.object_ids == ("1",) else SECOND for s in samples}
    scores = {s.prompt: 0.6 if s.object_ids == ("1",) else 0.8 for s in samples}
    scores["object 2 by 3"] = 0.3  # 0.3 < 0.6, so in this run the first object keeps the pixels
    told: dict[str, Any] = {"dataset": "ref-davis17", "split": "valid", "model_name": "told"}
    writer = open_submission(tmp_path / "answers", "ref-davis17", {})
    report = evaluate_videos(Told(masks, scores), samples, **told, protocol="davis", submission=writer)
    for run in range(4):
        for number, name in enumerate(FRAMES):
            with Image.open(tmp_path / f"answers/anno_{run}/a/{name}.png") as picture:
                assert picture.mode == "P" and picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
                first = FIRST[number] if run < 3 else both[number]
                wanted = first + 2 * (SECOND[number] & ~first)
                assert np.array_equal(np.array(picture), wanted)
    overall = report["metrics"]["overall"]
    assert report["protocol"]["name"] == "davis" and overall["samples"] == 8  # 2 objects, 4 runs
    # In run 4 the second object has no answer. The third frame, which shows nothing of the first object, counts 1.
    assert [overall[f"J run {run}"] for run in (1, 2, 3)] == [100, 100, 100] and overall["J run 4"] < 50
    assert overall["J"] == pytest.approx((300 + overall["J run 4"]) / 4, abs=0.01)
    again = evaluate_videos(Told({}), samples, **told, protocol="davis", submission=writer)
    assert again["metrics"] == report["metrics"]
    single = evaluate_videos(Told(masks, scores), samples, **told)
    assert single["protocol"]["name"] == "davis-expression" and single["metrics"]["overall"]["samples"] == 8
    assert single["metrics"]["overall"]["J"] < 100  # without sharing, the first answer is too large in every run


def test_the_palette_is_that_of_davis(shared_data: Path) -> None:
    with Image.open(shared_data / "cutie_examples/examples/masks/bike/00000.png") as picture:
        assert picture.getpalette() == davis_palette()


def test_the_command_takes_the_protocol_of_ref_davis17(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    root = davis(tmp_path / "data")
    command: dict[str, Any] = {"dataset": "ref-davis17", "split": "valid"}
    assert submit(monkeypatch, root, **command, protocol="davis") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["protocol"]["name"] == "davis" and "J&F run 4" in report["metrics"]["overall"]
    assert submit(monkeypatch, root, **command) == 2  # the report by another protocol is there
    (tmp_path / "report.json").unlink()
    assert submit(monkeypatch, root, **command, submission=tmp_path / "png") == 0
    assert json.loads((tmp_path / "report.json").read_text())["protocol"]["name"] == "davis"
    assert len(list((tmp_path / "png").glob("anno_?/a/*.png"))) == 12
    capsys.readouterr()
    for wrong, message in {
        "revos": "expected davis-expression or davis",
        "davis-expression": "needs --protocol davis;",
    }.items():
        assert submit(monkeypatch, root, **command, protocol=wrong, submission=tmp_path / "png") == 2
        assert message in capsys.readouterr().err


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine/notes.txt", "mine")
    with pytest.raises(ValueError, match="holds other files than the answers"):
        open_submission(tmp_path / "mine", "mevis", {})
    with pytest.raises(ValueError, match="is a file; expected a folder"):
        open_submission(tmp_path / "mine/notes.txt", "mevis", {})
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
