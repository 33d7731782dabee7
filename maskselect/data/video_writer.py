"""Answers for Ref-YouTube-VOS' server (and ReVOS' evaluator): a PNG a frame, 0 and 255, and the zip of them.

On disk: `Annotations/{video}/{expression}/{frame}.png`.
"""

import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from maskselect.backends.progress import track
from maskselect.structures.video import VideoSample

FOLDER = "Annotations"


class AnswerWriter:
    """Writes the answers of one split, an expression at a time, each whole or not at all.

    root: folder that gets `Annotations/`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, sample: VideoSample) -> Path:
        """Of the frames of an expression."""
        return self.root / FOLDER / sample.sample_id

    def is_done(self, sample: VideoSample) -> bool:
        """Whether an expression was answered already."""
        return self.folder(sample).is_dir()

    def write(self, sample: VideoSample, masks: np.ndarray) -> Path:
        """The folder of an expression, written anew. masks: (T, H, W) bool, one for each of the sample's frames.

        Raises ValueError, before anything is written, for masks of another number, size or type.
        """
        expected = (len(sample.frame_names), *sample.size)
        if masks.shape != expected or masks.dtype != np.bool_:
            told = f"{list(masks.shape)} {masks.dtype}; expected {list(expected)} bool"
            raise ValueError(f"the answer to {sample.sample_id} is {told}")
        folder = self.folder(sample)
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            for name, mask in zip(sample.frame_names, masks, strict=True):
                Image.fromarray(mask.astype(np.uint8) * 255).save(part / f"{name}.png")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return folder

    def pack(self, samples: Iterable[VideoSample], archive: str | Path) -> Path:
        """The zip that is handed in, with every frame of every sample.

        Raises FileNotFoundError, and writes nothing, when one of them is missing.
        """
        archive = Path(archive)
        files = [self.folder(sample) / f"{name}.png" for sample in samples for name in sample.frame_names]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"{file} is not there; every expression must be answered on every frame")
        part = archive.with_name(f".{archive.name}.{os.getpid()}.part")
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as zipped:
                for file in track(files, len(files), f"Packing {archive.name}", "frames"):
                    zipped.write(file, file.relative_to(self.root))
            os.replace(part, archive)
        finally:
            part.unlink(missing_ok=True)
        return archive
