"""Answers for Ref-YouTube-VOS' and MeViS' servers and ReVOS' evaluator: a PNG a frame, 0 and 255, and the zip of them.

On disk: `Annotations/{video}/{expression}/{frame}.png`; MeViS' server wants them without the `Annotations/`.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from maskselect.backends.progress import track
from maskselect.data.files import inside
from maskselect.ops.atomic import atomic_file, atomic_folder
from maskselect.structures.video import VideoSample


class AnswerWriter:
    """Writes the answers of one split, an expression at a time, each whole or not at all.

    root: folder that gets them.  inner: the folder in it, "" for none.
    """

    def __init__(self, root: str | Path, inner: str = "Annotations") -> None:
        self.root, self.top = Path(root), Path(root) / inner

    def folder(self, sample: VideoSample) -> Path:
        """Of the frames of an expression. Raises ValueError when its name, or its video's, leads anywhere else.

        Both come out of an annotation file, and what lies there is deleted before it is written anew.
        """
        top = self.top
        video = inside(top, sample.video_id, "video")
        key = sample.sample_id.removeprefix(f"{sample.video_id}/")
        folder = inside(video, key, "expression")
        if video == top or folder.parent != video:
            raise ValueError(f"expression {sample.sample_id!r} cannot name a folder under {top}")
        return folder

    def is_done(self, sample: VideoSample) -> bool:
        """Whether an expression was answered already, on every frame."""
        return all(file.is_file() for file in self._files(sample))

    def write(self, sample: VideoSample, masks: np.ndarray) -> Path:
        """The folder of an expression, written anew. masks: (T, H, W) bool, one for each of the sample's frames.

        Raises ValueError, before anything is written, for masks of another number, size or type, and for a name that
        leads out.
        """
        expected = (len(sample.frame_names), *sample.size)
        if not isinstance(masks, np.ndarray) or masks.shape != expected or masks.dtype != np.bool_:
            is_array = isinstance(masks, np.ndarray)
            told = f"{list(masks.shape)} {masks.dtype}" if is_array else f"a {type(masks).__name__}"
            raise ValueError(f"the answer to {sample.sample_id} is {told}; expected {list(expected)} bool, of numpy")
        folder, files = self.folder(sample), self._files(sample)
        with atomic_folder(folder, replace=True) as part:
            for file, mask in zip(files, masks, strict=True):
                Image.fromarray(mask.astype(np.uint8) * 255).save(part / file.name)
        return folder

    def pack(self, samples: Iterable[VideoSample], archive: str | Path) -> Path:
        """The zip that is handed in, with every frame of every sample.

        Raises FileNotFoundError, and writes nothing, when one of them is missing.
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
        """One a frame. Raises ValueError for a name that is not one file in the expression's folder."""
        folder = self.folder(sample)
        files = [inside(folder, f"{name}.png", "frame") for name in sample.frame_names]
        if wrong := [file for file in files if file.parent != folder]:
            raise ValueError(f"frame {wrong[0]} of expression {sample.sample_id!r} is not directly in its folder")
        return files
