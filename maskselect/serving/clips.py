"""Clips: uploaded videos in memory, their frames as pictures, and prompts about them with progress."""

import io
import os
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskselect.data.clips import open_clip
from maskselect.predictor import Model
from maskselect.reports.clip_files import write_clip_answers
from maskselect.serving.files import TYPES, safe_stem, zipped
from maskselect.serving.settings import Refusal, Settings
from maskselect.serving.wire import ClipFilesIn, PromptIn
from maskselect.structures.clip import Clip
from maskselect.structures.prediction import ClipGroup

KEPT = 2
"""Number of clips that are kept."""

ANSWERS = 16
"""Number of answers about a clip that are kept for downloads."""


class StoppedError(Exception):
    """The client went away, or the time of a prompt about a clip is over."""


class KeptClip:
    """An uploaded video.

    The file is in memory where the system has memory files, so that a server that is killed leaves nothing behind.

    Args:
        content: the file.
        settings: limits.

    Raises:
        Refusal: it is no video, or it is too long or too large.
    """

    def __init__(self, content: bytes, settings: Settings) -> None:
        self.key = secrets.token_hex(16)
        self.groups: dict[str, ClipGroup] = {}  # by id
        self._lock = threading.Lock()
        self._file = _held(content)
        try:
            self.clip: Clip = open_clip(self._file.path)
            self._shown = open_clip(self._file.path)  # a decoder of its own, so that scrubbing does not slow the model
        except (ValueError, OSError) as error:
            text = " ".join(str(error).split()).replace(str(self._file.path), "the file")
            raise Refusal(400, "bad_input", text) from error
        if len(self.clip) > settings.frames:
            raise Refusal(413, "too_large", f"the clip has {len(self.clip)} frames; expected at most {settings.frames}")
        if self.clip.size[0] * self.clip.size[1] > settings.megapixels * 1e6:
            raise Refusal(413, "too_large", f"the frames are of size {list(self.clip.size)}, which is too large")

    def record(self) -> dict[str, Any]:
        """The JSON about the clip."""
        return {"id": self.key, "frames": len(self.clip), "fps": self.clip.fps, "size": list(self.clip.size)}

    def jpeg(self, number: int) -> bytes:
        """A frame as JPEG. Raises Refusal beyond the last frame, or if it cannot be decoded."""
        if not 0 <= number < len(self._shown):
            raise Refusal(404, "no_frame", f"frame {number} does not exist; expected 0 to {len(self._shown) - 1}")
        try:
            with self._lock:
                pixels = self._shown[number]
        except ValueError as error:
            raise Refusal(400, "bad_input", f"frame {number} of the clip cannot be decoded") from error
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=90)
        return content.getvalue()


class WatchedClip:
    """A clip that counts the frames that were read, and stops when it is told to.

    Args:
        kept: the clip.

    Attributes:
        stopped: set it to end the computation at the next frame.
    """

    def __init__(self, kept: KeptClip) -> None:
        self.kept, self.fps, self.size = kept, kept.clip.fps, kept.clip.size
        self.stopped = threading.Event()
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return len(self.kept.clip)

    def __getitem__(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8. Raises StoppedError."""
        if self.stopped.is_set():
            raise StoppedError
        pixels = self.kept.clip[frame]
        self._seen.add(frame)
        return pixels

    @property
    def seen(self) -> int:
        """Number of different frames that were read."""
        return len(self._seen)


class Clips:
    """The last clips. The oldest leaves when there are too many."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._kept: OrderedDict[str, KeptClip] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, content: bytes) -> KeptClip:
        """Open and keep a video. Raises as `KeptClip`."""
        kept = KeptClip(content, self.settings)
        with self._lock:
            self._kept[kept.key] = kept
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept

    def get(self, key: str) -> KeptClip:
        """A clip. Raises Refusal if it is not there any more."""
        with self._lock:
            if (kept := self._kept.get(key)) is None:
                raise Refusal(404, "no_clip", "the clip is not kept any more; send it again")
            self._kept.move_to_end(key)
            return kept


def answer_clip(
    model: Model, kept: KeptClip, watched: WatchedClip, prompts: list[PromptIn], threshold: float | None
) -> list[dict[str, Any]]:
    """The answers to prompts about a clip as JSON, each with an id, under which it is kept for downloads.

    Raises:
        Refusal: a reference is unusable.
        ValueError: as `Model.select_video_many`.
        StoppedError: `watched.stopped` was set.
    """
    size = kept.clip.size
    references = [[one.resolve(size, size, None) for one in prompt.references] for prompt in prompts]
    frames = [[one.frame for one in prompt.references] for prompt in prompts]
    groups = model.select_video_many(watched, [prompt.text for prompt in prompts], references, frames, threshold)
    named = {secrets.token_hex(8): group for group in groups}
    kept.groups = dict([*kept.groups.items(), *named.items()][-ANSWERS:])
    return [one.to_dict() | {"id": key, "text": one.text, "failure": one.failure} for key, one in named.items()]


def write_clip(wanted: ClipFilesIn, kept: KeptClip, model: Model, name: str) -> tuple[str, str, bytes]:
    """The file of a download: name, media type and content; several files are a zip.

    Raises:
        Refusal: an answer is not kept any more.
    """
    groups = [kept.groups[key] for key in wanted.answers if key in kept.groups]
    if len(groups) < len(wanted.answers):
        raise Refusal(409, "no_answer", "the server does not keep this answer any more; ask the prompt again")
    stem = safe_stem(name)
    with tempfile.TemporaryDirectory(prefix="maskselect-") as folder:
        output = Path(folder)
        write_clip_answers(groups, output, Path(f"{stem}.mp4"), model.name, (wanted.format,))
        files = sorted(output.iterdir())
        if len(files) == 1 and files[0].is_file():
            return files[0].name, TYPES[files[0].suffix], files[0].read_bytes()
        return f"{stem}.{wanted.format}.zip", "application/zip", zipped(output)


class _MemoryFile:
    """A file in memory with a path in /proc."""

    def __init__(self, content: bytes) -> None:
        self._descriptor = os.memfd_create("clip")
        self.path = Path(f"/proc/self/fd/{self._descriptor}")
        with _open_copy(self._descriptor) as file:
            file.write(content)

    def __del__(self) -> None:
        os.close(self._descriptor)


class _TemporaryFile:
    """A file in the system's folder for temporary files, which is removed with this object."""

    def __init__(self, content: bytes) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="maskselect-")
        self.path = Path(self._folder.name) / "clip"
        self.path.write_bytes(content)


@contextmanager
def _open_copy(descriptor: int) -> Iterator[io.BufferedWriter]:
    with os.fdopen(os.dup(descriptor), "wb") as file:
        yield file


def _held(content: bytes) -> "_MemoryFile | _TemporaryFile":
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        return _MemoryFile(content)
    return _TemporaryFile(content)
