"""Answers for the servers of Ref-YouTube-VOS and MeViS, the evaluator of ReVOS and the toolkit of DAVIS 2017.

On disk, under a folder:
- `Annotations/{video}/{expression}/{frame}.png` of 0 and 255; without `Annotations/` for the server of MeViS;
- Ref-DAVIS17: `anno_{run}/{video}/{frame}.png`, whose index is the object's number, as ReferFormer's
  `inference_davis.py` writes them. `anno_{run}` is a `--results_path` of davis2017-evaluation;
- run lengths: `{video}/{expression}.json`, joined in one file `{video: {expression: [RLE or null a frame]}}`.
"""

import json
import zipfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from maskselect.backends.progress import track
from maskselect.data.files import inside
from maskselect.data.images import open_picture
from maskselect.ops import rle
from maskselect.ops.atomic import atomic_file, atomic_folder, write_text
from maskselect.structures.video import VideoSample

RUNS = 4
"""Annotation runs of Ref-DAVIS17: expression 4 (n - 1) + run is about object n."""


class Writer(Protocol):
    """Writes the answer to each expression whole or not at all, and reads it again.

    Attributes:
        root: the folder of the answers.
    """

    root: Path

    def is_done(self, sample: VideoSample) -> bool:
        """Whether the answer to an expression is complete."""
        ...

    def write(self, sample: VideoSample, masks: np.ndarray) -> Path:
        """Write or replace an answer, (T, H, W), and return its path."""
        ...

    def read(self, sample: VideoSample) -> np.ndarray:
        """The answer that was written: (T, H, W)."""
        ...

    def pack(self, samples: Iterable[VideoSample], archive: str | Path) -> Path:
        """Write one file with the answers to all samples, and return its path."""
        ...


class AnswerWriter:
    """Writes the answers of one split as PNGs by expression, each whole or not at all.

    Args:
        root: the target folder.
        inner: the folder in it, "" for none.
    """

    dtype: type = np.bool_

    def __init__(self, root: str | Path, inner: str = "Annotations") -> None:
        self.root, self.top = Path(root), Path(root) / inner

    def folder(self, sample: VideoSample) -> Path:
        """The folder of an expression's frames, which `write` replaces.

        Raises:
            ValueError: the name of the expression or of its video leads elsewhere.
        """
        return _expression(self.top, sample)

    def is_done(self, sample: VideoSample) -> bool:
        """Whether an expression has an answer on every frame."""
        return all(file.is_file() for file in self._files(sample))

    def write(self, sample: VideoSample, masks: np.ndarray) -> Path:
        """Write or replace the answer to an expression.

        Args:
            sample: the expression.
            masks: (T, H, W) bool, one for each of its frames.

        Returns:
            The folder.

        Raises:
            ValueError: masks have another number, size or type, or a name leads out. Nothing is written.
        """
        _check(sample, masks, self.dtype)
        folder, files = self.folder(sample), self._files(sample)
        with atomic_folder(folder, replace=True) as part:
            for file, mask in zip(files, masks, strict=True):
                self._picture(mask).save(part / file.name)
        return folder

    def read(self, sample: VideoSample) -> np.ndarray:
        """The answer that `write` wrote.

        Raises:
            FileNotFoundError: a frame has no answer.
            ValueError: a file cannot be read or has another size.
        """
        frames: list[np.ndarray] = []
        for file in self._files(sample):
            frame = np.array(open_picture(file, f"answer {file}"))
            if frame.shape != sample.size or frame.dtype != np.uint8:
                form = f"{list(frame.shape)} {frame.dtype}"
                raise ValueError(f"answer {file} is {form}; expected {list(sample.size)} uint8")
            frames.append(frame.astype(self.dtype))
        return np.stack(frames)

    def _picture(self, mask: np.ndarray) -> Image.Image:
        return Image.fromarray(mask.astype(np.uint8) * 255)

    def pack(self, samples: Iterable[VideoSample], archive: str | Path) -> Path:
        """Write the zip for the server, with every frame of every sample, and return its path.

        Raises:
            FileNotFoundError: a frame has no answer. Nothing is written.
        """
        archive = Path(archive)
        files = [file for sample in samples for file in self._files(sample)]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"{file} is not there; every expression must be answered on every frame")
        with atomic_file(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as zipped:
            for file in track(files, len(files), f"Packing {archive.name}", "frames"):
                zipped.write(file, file.relative_to(self.root))
        return archive

    def _files(self, sample: VideoSample) -> list[Path]:
        """One file per frame. Raises ValueError for a name that is no file in the expression's folder."""
        folder = self.folder(sample)
        files = [inside(folder, f"{name}.png", "frame") for name in sample.frame_names]
        if wrong := [file for file in files if file.parent != folder]:
            raise ValueError(f"frame {wrong[0]} of expression {sample.sample_id!r} is not directly in its folder")
        return files


class IndexWriter(AnswerWriter):
    """Writes the answers of Ref-DAVIS17 as palette PNGs, with all objects of one annotation run of a video together.

    An answer is (T, H, W) uint8: 0 background, k the object k. Every sample of one run of a video has the same answer.
    """

    dtype = np.uint8

    def __init__(self, root: str | Path) -> None:
        super().__init__(root, inner="")

    def folder(self, sample: VideoSample) -> Path:
        """The folder of the frames of a video in the run of this expression. See `AnswerWriter.folder`."""
        top = self.top / f"anno_{run_of(sample)}"
        folder = inside(top, sample.video_id, "video")
        if folder.parent != top:
            raise ValueError(f"video {sample.video_id!r} cannot name a folder under {top}")
        return folder

    def _picture(self, mask: np.ndarray) -> Image.Image:
        picture = Image.fromarray(mask, mode="P")
        picture.putpalette(davis_palette())
        return picture


class RleWriter:
    """Writes answers as run lengths of COCO, one JSON file per expression, and joins them in one file.

    Args:
        root: the target folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def file(self, sample: VideoSample) -> Path:
        """The file of an expression. Raises ValueError for a name that leads elsewhere."""
        expression = _expression(self.root, sample)
        return expression.with_name(f"{expression.name}.json")

    def is_done(self, sample: VideoSample) -> bool:
        """Whether an expression has an answer."""
        return self.file(sample).is_file()

    def write(self, sample: VideoSample, masks: np.ndarray) -> Path:
        """Write or replace the answer to an expression: (T, H, W) bool. See `AnswerWriter.write`."""
        _check(sample, masks, np.bool_)
        file = self.file(sample)
        file.parent.mkdir(parents=True, exist_ok=True)
        codes = [rle.encode(mask[None])[0] if mask.any() else None for mask in masks]
        write_text(file, json.dumps(codes))
        return file

    def read(self, sample: VideoSample) -> np.ndarray:
        """The answer that `write` wrote: (T, H, W) bool. Raises ValueError if it is damaged or of another size."""
        file = self.file(sample)
        codes = json.loads(file.read_text())
        if len(codes) != len(sample.frame_names):
            raise ValueError(f"answer {file} has {len(codes)} frames; expected {len(sample.frame_names)}")
        masks = [np.zeros(sample.size, bool) if code is None else rle.decode(code) for code in codes]
        if wrong := [mask for mask in masks if mask.shape != sample.size]:
            raise ValueError(f"answer {file} is of size {list(wrong[0].shape)}; expected {list(sample.size)}")
        return np.stack(masks)

    def pack(self, samples: Iterable[VideoSample], archive: str | Path) -> Path:
        """Write the answers to all samples in one file. Samples of one video are consecutive.

        Raises:
            FileNotFoundError: an expression has no answer. Nothing is written.
        """
        archive, listed = Path(archive), list(samples)
        for sample in listed:
            if not self.is_done(sample):
                raise FileNotFoundError(f"{self.file(sample)} is not there; every expression must be answered")
        with atomic_file(archive) as part, part.open("w") as out:
            shown = track(listed, len(listed), f"Packing {archive.name}", "expressions")
            before = "{"
            for video, of_video in groupby(shown, lambda sample: sample.video_id):
                out.write(f"{before}{json.dumps(video)}: ")
                inner = "{"
                for sample in of_video:
                    out.write(f"{inner}{json.dumps(_key(sample))}: {self.file(sample).read_text()}")
                    inner = ", "
                out.write("}")
                before = ",\n"
            out.write("}\n")
        return archive


def run_of(sample: VideoSample) -> int:
    """The annotation run of an expression of Ref-DAVIS17, 0 to 3."""
    return int(_key(sample)) % RUNS


def davis_palette() -> list[int]:
    """The palette of DAVIS' annotations: 768 values. 22 colours of Pascal VOC with 191 for 192, then greys.

    The same as in the annotations of DAVIS 2017, see `davis_palette.py` of Cutie (hkchengrex/Cutie).

    >>> davis_palette()[:9], davis_palette()[27:30], davis_palette()[66:69]
    ([0, 0, 0, 128, 0, 0, 0, 128, 0], [191, 0, 0], [22, 22, 22])
    """
    colours = []
    for index in range(22):
        low, high = index & 7, index >> 3
        channels = [128 * (low >> bit & 1) + 64 * (high >> bit & 1) for bit in range(3)]
        colours += [191 if channel == 192 else channel for channel in channels]
    return colours + [grey for index in range(22, 256) for grey in (index, index, index)]


def _key(sample: VideoSample) -> str:
    """The expression's own name, without that of its video."""
    return sample.sample_id.removeprefix(f"{sample.video_id}/")


def _expression(top: Path, sample: VideoSample) -> Path:
    """`top/video/expression`. Raises ValueError if a name leads elsewhere."""
    video = inside(top, sample.video_id, "video")
    path = inside(video, _key(sample), "expression")
    if video == top or path.parent != video:
        raise ValueError(f"expression {sample.sample_id!r} cannot name a folder under {top}")
    return path


def _check(sample: VideoSample, masks: np.ndarray, dtype: type) -> None:
    """Raise ValueError unless the masks are an array (T, H, W) of the sample's frames and size."""
    expected, kind = (len(sample.frame_names), *sample.size), np.dtype(dtype)
    if not isinstance(masks, np.ndarray) or masks.shape != expected or masks.dtype != kind:
        is_array = isinstance(masks, np.ndarray)
        form = f"{list(masks.shape)} {masks.dtype}" if is_array else f"a {type(masks).__name__}"
        raise ValueError(f"the answer to {sample.sample_id} is {form}; expected {list(expected)} {kind}, of numpy")
