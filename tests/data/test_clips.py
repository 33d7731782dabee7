"""Clips: a file, a folder and a list give the same pictures, in whatever order they are asked for."""

import pickle
import struct
from fractions import Fraction
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


UNEVEN = [20 * k if k < 30 else 600 + 200 * (k - 30) for k in range(60)]  # 50 frames a second, then 5: 6.4 s
EVEN = [40 * k for k in range(60)]


def write_at(path: Path, times: list[int], **options: str) -> Path:
    """A video whose frames have these times in milliseconds, in a file that states 30 frames a second."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, time in zip(frames(len(times)), times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_a_variable_rate_is_the_mean_of_the_timestamps(ending: str, tmp_path: Path) -> None:
    clip = open_clip(write_at(tmp_path / f"uneven.{ending}", UNEVEN))
    assert len(clip) == 60 and len(clip) / clip.fps == pytest.approx(6.5, abs=0.11)
    write_video(tmp_path / "overlay.mp4", (clip[frame] for frame in range(60)), clip.fps)
    with pytest.importorskip("av").open(str(tmp_path / "overlay.mp4")) as container:
        assert container.duration / 1e6 == pytest.approx(6.5, abs=0.11)
    assert open_clip(write_at(tmp_path / f"even.{ending}", EVEN)).fps == pytest.approx(25, rel=0.02)


@pytest.mark.parametrize("fps", [0.0001, 23.976, 119.88, 1000])
def test_any_rate_can_be_written(fps: float, tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "clip.mp4", frames(3), fps)
    assert open_clip(tmp_path / "clip.mp4").fps == pytest.approx(max(fps, 1 / 1001), rel=1e-3)


# ISO 14496-12, 8.3.2: the matrix (a b u, c d v, x y w) of a track takes (x, y) to (a x + c y, b x + d y).
@pytest.mark.parametrize(("turns", "matrix"), [(1, (0, 1, -1, 0)), (2, (-1, 0, 0, -1)), (3, (0, -1, 1, 0))])
def test_a_rotated_video_is_upright(turns: int, matrix: tuple[int, ...], video: Path, tmp_path: Path) -> None:
    content = video.read_bytes()
    at = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    rotated = tmp_path / "rotated.mp4"
    rotated.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])
    clip = open_clip(rotated)
    assert clip.size == ((64, 48) if turns % 2 else (48, 64))
    assert np.array_equal(clip[7], np.rot90(open_clip(video)[7], -turns))  # clockwise


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize(("ending", "options"), [("mp4", {"movflags": "faststart"}), ("mkv", {})])
def test_a_truncated_video_is_refused(ending: str, options: dict[str, str], share: float, tmp_path: Path) -> None:
    content = write_at(tmp_path / f"whole.{ending}", [100 * k for k in range(60)], **options).read_bytes()
    end = len(content) if ending == "mp4" else content.rindex(b"\x1c\x53\xbb\x6b")  # Cues, after the last frame
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(content[: int(share * end)])
    if ending == "mkv" and share > 0.9:  # only Matroska's length tells of missing frames, to a second
        assert len(open_clip(cut)) >= 50
        return
    with pytest.raises(ValueError, match=r"cut\.\w+ is truncated: .*; expected a complete video file$"):
        open_clip(cut)


def test_other_files_than_videos_are_refused_in_one_sentence(video: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "head.mp4").write_bytes(video.read_bytes()[:2000])
    for name in ("empty.mp4", "head.mp4"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a video: [^\\[]*; expected a complete video"):
            open_clip(tmp_path / name)
    for ending in ("jpg", "png", "webp", "bmp", "tif"):
        picture = tmp_path / f"picture.{ending}"
        Image.fromarray(frames(1)[0]).save(picture)
        with pytest.raises(ValueError, match="is a picture; expected a video file or a folder of frames"):
            open_clip(picture)
    for name, cover in {"sound.m4a": False, "cover.m4a": True}.items():
        with av.open(str(tmp_path / name), "w", format="mp4") as container:
            sound = container.add_stream("aac", rate=44100, layout="mono")
            if cover:
                image = container.add_stream("mjpeg", rate=1)
                image.width, image.height, image.pix_fmt = 64, 48, "yuvj420p"
                image.disposition = av.stream.Disposition.attached_pic
                container.mux(image.encode(av.VideoFrame.from_ndarray(frames(1)[0], format="rgb24")))
                container.mux(image.encode())
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate, silence.pts = 44100, 0
            container.mux(sound.encode(silence))
            container.mux(sound.encode())
        with pytest.raises(ValueError, match="has no video stream"):
            open_clip(tmp_path / name)
