"""Answers about videos: the files, all or none of them, and memory that does not grow with the clip."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskselect.data.clips import open_clip
from maskselect.ops import drawing, rle
from maskselect.predictor import Model
from maskselect.reports.clip_files import write_clip_answers
from tests.systems.skeleton import Halves
from tests.systems.tiny_instructseg import tiny_instructseg

pytest.importorskip("av")

SIDE = 128


class LongClip:
    """A moving square, drawn on demand. `seen` is called with the number of each frame."""

    fps = 12.0

    def __init__(self, frames: int, seen: Callable[[int], None] = lambda frame: None, side: int = SIDE) -> None:
        self.frames, self.seen, self.size = frames, seen, (side, side)

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, frame: int) -> np.ndarray:
        self.seen(frame)
        pixels = np.full((*self.size, 3), 60, np.uint8)
        pixels[40:80, 8 + frame % 64 :][:, :40] = 200
        return pixels


class BrokenClip(LongClip):
    """A clip whose third frame cannot be read once `is_broken` is set."""

    is_broken = False

    def __getitem__(self, frame: int) -> np.ndarray:
        if self.is_broken and frame == 2:
            raise ValueError("frame 2 cannot be decoded")
        return super().__getitem__(frame)


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_json_masks_and_overlay_agree(tmp_path: Path) -> None:
    groups = [Model(Halves(), name="halves").select_video(LongClip(5), "left")]
    write_clip_answers(groups, tmp_path, Path("clip.mp4"), "halves")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "clip.json", "clip.overlay.mp4"]
    record = json.loads((tmp_path / "clip.json").read_text())
    assert (record["frames"], record["fps"], record["size"], record["model"]) == (5, 12.0, [SIDE, SIDE], "halves")
    half = np.arange(SIDE) < SIDE // 2
    for frame, code in enumerate(record["objects"][0]["segmentations"]):
        with Image.open(tmp_path / f"clip/{frame:05d}.png") as picture:
            assert np.array_equal(np.array(picture), np.tile(half * np.uint8(255), (SIDE, 1)))
        assert np.array_equal(rle.decode(code), np.tile(half, (SIDE, 1)))
    assert len(list((tmp_path / "clip").iterdir())) == len(open_clip(tmp_path / "clip.overlay.mp4")) == 5


def test_a_frame_that_fails_leaves_no_file(tmp_path: Path) -> None:
    clip = BrokenClip(4)
    group = Model(Halves()).select_video(clip, "left")
    clip.is_broken = True
    with pytest.raises(ValueError, match="frame 2 cannot be decoded"):
        write_clip_answers([group], tmp_path, Path("clip.mp4"), "halves")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("name", ["halves", "instructseg"])
def test_memory_does_not_grow_with_the_clip(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "SHORTEST", SIDE)  # a larger overlay only takes time
    model, frames, early, side = {
        "halves": (lambda: Model(Halves()), 3000, 500, SIDE),
        "instructseg": (lambda: Model(tiny_instructseg(), threshold=0.0), 200, 50, 4 * SIDE),
    }[name]
    held: dict[int, list[float]] = {early: [], frames - 1: []}

    def seen(frame: int) -> None:
        if frame in held:
            held[frame].append(resident())

    group = model().select_video(LongClip(frames, seen, side), "the square")
    assert len(group)
    write_clip_answers([group], tmp_path, Path("clip.mp4"), name)
    for read in (0, -1):  # when the clip is answered, and when the answer is written
        growth = held[frames - 1][read] - held[early][read]
        assert growth < 0.4 * (frames - early) * side * side * 3 / 2**20  # of the frames between
