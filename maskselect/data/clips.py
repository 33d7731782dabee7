"""Clips from video files (PyAV), folders of frames and frames in memory, and a writer of videos."""

import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskselect.backends.optional import lazy
from maskselect.data.images import load_image
from maskselect.ops.atomic import atomic_file
from maskselect.structures.clip import Clip

av = lazy("av", "video")

ClipSource = str | Path | Sequence[np.ndarray] | Clip
"""A video file, a folder of frames, frames in memory, or a clip."""

FRAME_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FOLDER_FPS = 24.0
"""Frames per second of a folder or of frames in memory."""
_FINEST, _MOST_TICKS = 1001, 65535  # largest denominator of a written frame rate, and numerator that MPEG-4 allows


class FramesClip:
    """Frames in files or in memory.

    Args:
        frames: image files, or (H, W, 3) uint8 arrays, which are copied.
        fps: frames per second.

    Raises:
        ValueError: there are no frames.
    """

    def __init__(self, frames: Sequence[Path | np.ndarray], fps: float = FOLDER_FPS) -> None:
        if not len(frames):
            raise ValueError("the clip has no frames; expected at least one")
        self.frames = [frame if isinstance(frame, Path) else load_image(frame) for frame in frames]
        self.fps = fps
        first = load_image(self.frames[0])
        self.size: tuple[int, int] = first.shape[0], first.shape[1]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8. Raises ValueError if its size differs from the first frame."""
        pixels = load_image(self.frames[frame])
        if pixels.shape[:2] != self.size:
            name = self.frames[frame] if isinstance(self.frames[frame], Path) else f"number {frame}"
            raise ValueError(
                f"frame {name} is of size {pixels.shape[:2]}; expected {self.size}, that of the first frame"
            )
        return pixels


class FileClip:
    """A video file. Frames are decoded in order; an earlier frame is decoded from the key frame before it.

    Frames are upright: the rotation that the file states is applied. The frame rate is the mean of a variable one.

    Args:
        path: a file that PyAV (FFmpeg) can read.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is a picture, is truncated, has no video stream or no readable frame, or the package `av` is
            missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"video {path} is not there")
        self.path = path
        self._times: list[int] = []
        try:
            with av.open(str(path)) as container:
                if container.format.name.endswith("_pipe") or container.format.name == "image2":
                    raise ValueError(f"{path} is a picture; expected a video file or a folder of frames")
                self._stream = _number_of_stream(container)
                if self._stream is None:
                    raise ValueError(f"{path} has no video stream; expected a video file or a folder of frames")
                self._scan(container)
        except av.error.FFmpegError as error:
            raise ValueError(
                f"{path} cannot be read as a video: {error.strerror}; expected a complete video file"
            ) from error
        if not self._times:
            raise ValueError(f"{path} has no frames; expected a video file or a folder of frames")
        self._numbers = {time: number for number, time in enumerate(self._times)}
        self._begin()
        first = self[0]
        self.size: tuple[int, int] = first.shape[0], first.shape[1]

    def _scan(self, container: Any) -> None:
        """Read the times of all frames and the frame rate, without decoding, so that a long video is opened fast.

        Raises:
            ValueError: the file ends before the frames that its header states.
        """
        stream = container.streams.video[self._stream]
        packets, is_cut = 0, False
        for packet in container.demux(stream):
            if packet.pts is not None:
                packets, is_cut = packets + 1, packet.is_corrupt
                if not packet.is_discard:  # such frames are not shown
                    self._times.append(packet.pts)
        self._times.sort()
        seconds = [float(time * stream.time_base) for time in self._times]
        self.fps = _mean_rate(seconds, float(stream.average_rate or FOLDER_FPS))
        stated = stream.frames if "mp4" in container.format.name else 0  # AVI counts frames that are left out
        if is_cut or packets < stated:
            holds = f"{packets - is_cut} of {stated}" if stated else f"{packets - is_cut} complete"
            raise ValueError(f"{self.path} is truncated: it holds {holds} frames; expected a complete video file")
        length = _stated_length(stream.metadata.get("DURATION", ""))
        if seconds and length > seconds[-1] + _longest_gap(seconds) + 1:
            until = f"its frames end at {seconds[-1]:.1f} of {length:.1f} seconds"
            raise ValueError(f"{self.path} is truncated: {until}; expected a complete video file")

    def _begin(self) -> None:
        self._container: Any = None
        self._decoder: Iterator[Any] = iter(())
        self._next = 0

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_container", "_decoder", "_next")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._begin()

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8. Raises IndexError beyond the last frame, ValueError if it cannot be decoded."""
        if not 0 <= frame < len(self):
            raise IndexError(f"frame {frame} of {self.path}; expected 0 to {len(self) - 1}")
        try:
            if self._container is None or frame < self._next:
                self._seek(frame)
            for decoded in self._decoder:
                number = self._numbers.get(decoded.pts, -1)
                self._next = number + 1
                if number == frame:
                    return np.ascontiguousarray(_upright(decoded.to_ndarray(format="rgb24"), decoded.rotation))
                if number > frame:
                    break
        except av.error.FFmpegError as error:
            raise ValueError(f"frame {frame} of {self.path} cannot be decoded: {error.strerror}") from error
        raise ValueError(f"frame {frame} of {self.path} cannot be decoded; the file may be damaged")

    def _seek(self, frame: int) -> None:
        if self._container is not None:
            self._container.close()
        self._container = av.open(str(self.path))
        stream = self._container.streams.video[self._stream]
        if frame:
            self._container.seek(self._times[frame], stream=stream, backward=True)
        self._decoder = self._container.decode(stream)
        self._next = 0


class WorkingClip:
    """A clip whose frames are scaled down to the working size.

    Args:
        clip: the clip.
        size: (h, w) of the frames that are returned.
    """

    def __init__(self, clip: Clip, size: tuple[int, int]) -> None:
        self.clip, self.size, self.fps = clip, size, clip.fps

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, frame: int) -> np.ndarray:
        """(h, w, 3) uint8."""
        pixels = self.clip[frame]
        if pixels.shape[:2] == self.size:
            return pixels
        return cv2.resize(pixels, (self.size[1], self.size[0]), interpolation=cv2.INTER_AREA)


def open_clip(source: ClipSource) -> Clip:
    """Open a clip from a video file, a folder of frames (in natural order of their names), or frames in memory.

    Raises:
        FileNotFoundError: the file or folder does not exist.
        ValueError: it has no frames or cannot be read.
        TypeError: the source is of another type.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            files = sorted((f for f in path.iterdir() if f.suffix.lower() in FRAME_ENDINGS), key=_natural)
            if not files:
                raise ValueError(f"folder {path} has no frames; expected image files such as 00000.jpg")
            return FramesClip(files)
        return FileClip(path)
    if isinstance(source, np.ndarray) and source.ndim == 4:
        return FramesClip(list(source))
    if isinstance(source, list | tuple):
        return FramesClip(source)
    if isinstance(source, Clip) and not isinstance(source, np.ndarray | bytes):
        return source
    raise TypeError(
        f"the video is of type {type(source).__name__}; expected a file, a folder of frames, or a list of RGB frames"
    )


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames (H, W, 3) uint8 as an MP4 file, whole or not at all; odd sizes lose their last row or column.

    The frame rate is rounded to one that MPEG-4 can store.

    Raises:
        ValueError: the package `av` is missing.
    """
    with atomic_file(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = None
        for frame in frames:
            height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
            if stream is None:
                finest = min(max(int(_MOST_TICKS / fps), 1), _FINEST)
                rate = max(Fraction(fps).limit_denominator(finest), Fraction(1, _FINEST))
                stream = container.add_stream("mpeg4", rate=rate)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.options = {"q:v": "3"}
                stream.codec_context.qmin, stream.codec_context.qmax = 2, 5
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())


def _number_of_stream(container: Any) -> int | None:
    """The number of the first video stream that is not the cover of an audio file; None if there is none."""
    cover = av.stream.Disposition.attached_pic
    return next((n for n, stream in enumerate(container.streams.video) if not stream.disposition & cover), None)


def _longest_gap(seconds: list[float]) -> float:
    """The longest time between two frames."""
    return max((after - before for before, after in pairwise(seconds)), default=0.0)


def _mean_rate(seconds: list[float], average: float) -> float:
    """Frames per second: the average that the file states, or that of the timestamps if they contradict it.

    The frames last from the first timestamp to the last one, and at most the longest gap beyond it.
    """
    span = seconds[-1] - seconds[0] if seconds else 0.0
    if span <= 0 or 0.99 * span <= len(seconds) / average <= 1.01 * (span + _longest_gap(seconds)):
        return average
    return (len(seconds) - 1) / span


def _stated_length(text: str) -> float:
    """Seconds of the tag DURATION of Matroska, such as "00:00:06.433000000"; 0 if there is none.

    >>> _stated_length("00:01:06.500000000"), _stated_length("")
    (66.5, 0.0)
    """
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def _upright(pixels: np.ndarray, rotation: int) -> np.ndarray:
    """Rotate a frame counterclockwise by `rotation` degrees, a multiple of 90."""
    return np.rot90(pixels, rotation // 90 % 4) if rotation % 360 else pixels


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """A sort key that puts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]
