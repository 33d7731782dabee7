"""Clips: a file, a folder and a list give the same pictures, in whatever order they are asked for."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskselect.data.clips import FileClip, FramesClip, open_clip, write_video
from maskselect.structures.clip import Clip


def frames(count: int = 30) -> list[np.ndarray]:
    rows, columns = np.mgrid[:48, :64]
    return [
        np.stack([(rows * 2 + 5 * t) % 250, columns * 3, np.full_like(rows, 8 * t)], 2).astype(np.uint8)
        for t in range(count)
    ]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, frames(), 12.5)
    return path


def test_a_file_gives_its_frames_in_any_order(video: Path) -> None:
    clip, wanted = open_clip(video), frames()
    assert isinstance(clip, FileClip) and isinstance(clip, Clip)
    assert (len(clip), clip.size, clip.fps) == (30, (48, 64), 12.5)
    straight = [clip[number] for number in range(30)]
    for number in (29, 3, 3, 17, 0, 16, 15):
        assert np.array_equal(clip[number], straight[number])
        assert np.abs(clip[number][..., 2].astype(int) - wanted[number][..., 2]).mean() < 6  # the frame's own blue
    assert np.array_equal(pickle.loads(pickle.dumps(clip))[17], straight[17])
    with pytest.raises(IndexError, match="expected 0 to 29"):
        clip[30]


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number, frame in enumerate(frames(11)):
        Image.fromarray(frame).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    clip, wanted = open_clip(tmp_path), frames(11)
    assert len(clip) == 11 and all(np.array_equal(clip[n], wanted[n]) for n in (2, 10, 1))


def test_frames_in_memory_are_copied() -> None:
    given = frames(2)
    clip = FramesClip(given)
    clip[0][:] = 0
    given[0][:] = 7  # what a caller changes later changes no clip, and so no group that holds it
    assert np.array_equal(clip[0], frames(2)[0]) and len(open_clip(np.stack(frames(2)))) == 2


def test_what_is_no_clip_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        open_clip(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="has no frames"):
        open_clip(tmp_path)
    with pytest.raises(ValueError, match="no frames"):
        open_clip([])
    with pytest.raises(TypeError, match="of type int"):
        open_clip(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected \\(48, 64\\)"):
        FramesClip([frames(1)[0], frames(1)[0][:40]])[1]
    pytest.importorskip("av")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="cannot be read as a video"):
        open_clip(tmp_path / "text.mp4")
