"""`predict --video`: files, progress on a terminal, and videos that cannot be read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskselect.backends import progress
from maskselect.cli import loading
from maskselect.data.clips import write_video
from maskselect.predictor import Model
from tests.cli.asking import predict
from tests.systems.skeleton import Halves
from tests.systems.tiny import tiny_ras

pytest.importorskip("av")


@pytest.fixture(autouse=True)
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_model", lambda options: Model(Halves()))


def noise(frames: int = 8) -> np.ndarray:
    """Frames that compress badly, so that a damaged byte is in the middle of a picture."""
    return np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), np.uint8)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, noise(), 8.0)
    return path


def test_progress_has_rate_and_remaining_time(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(loading, "load_model", lambda options: Model(tiny_ras(), threshold=0.0))
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    output = tmp_path / "out"
    assert predict("--video", video, "--prompt", "the ball", "--output", output) == 0
    written = screen.getvalue()
    for step in ("Answering", "Writing clip"):
        line = written[written.rindex(step) :].partition("\n")[0]
        assert "8/8" in line and "frames/s 0:00:00" in line
    assert "in 8 frames" in capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["clip", "clip.json", "clip.overlay.mp4"]
    assert json.loads((output / "clip.json").read_text())["frames"] == 8


def test_videos_that_cannot_be_answered(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = video.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    damaged = bytearray(content)
    start = content.index(b"mdat") + 4
    for place in range(start + len(content) // 4, start + len(content) // 2):
        damaged[place] = 0
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    (tmp_path / "empty").mkdir()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, frame in enumerate(noise(3)):
        Image.fromarray(frame[: 48 - 8 * (number == 2)]).save(mixed / f"{number}.png")
    picture = tmp_path / "picture.png"
    Image.fromarray(noise(1)[0]).save(picture)
    for wrong, message in {
        tmp_path / "cut.mp4": "expected a complete video file",
        tmp_path / "damaged.mp4": "cannot be decoded",
        tmp_path / "empty": "has no frames; expected image files",
        mixed: "2.png is of size (40, 64); expected (48, 64), that of the first frame",
        picture: "is a picture; expected a video file",
        tmp_path / "none.mp4": "is not there",
    }.items():
        assert predict("--video", wrong, "--prompt", "left", "--output", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_formats_of_a_video(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert predict("--video", video, "--prompt", "left", "--formats", "mask", "--output", output) == 0
    assert [path.name for path in output.iterdir()] == ["clip"] and len(list((output / "clip").iterdir())) == 8
    assert predict("--video", video, "--prompt", "left", "--formats", "json,coco", "--output", tmp_path / "no") == 2
    assert "--formats coco is for --image; expected some of json, overlay, mask" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
