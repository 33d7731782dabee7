"""Answers for the servers of Ref-YouTube-VOS and MeViS and the evaluator of ReVOS: PNGs of 0 and 255, and their zip.

On disk: `Annotations/{video}/{expression}/{frame}.png`; without `Annotations/` for the server of MeViS.
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
    """Writes the answers of one split by expression, each whole or not at all.

    Args:
        root: the target folder.
        inner: the folder in it, "" for none.
    """

    def __init__(self, root: str | Path, inner: str = "Annotations") -> None:
        self.root, self.top = Path(root), Path(root) / inner

    def folder(self, sample: VideoSample) -> Path:
        """The folder of an expression's frames, which `write` replaces.

        Raises:
            ValueError: the name of the expression or of its video leads elsewhere.
        """
        video = inside(self.top, sample.video_id, "video")
        key = sample.sample_id.removeprefix(f"{sample.video_id}/")
        folder = inside(video, key, "expression")
        if video == self.top or folder.parent != video:
            raise ValueError(f"expression {sample.sample_id!r} cannot name a folder under {self.top}")
        return folder

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
        expected = (len(sample.frame_names), *sample.size)
        if not isinstance(masks, np.ndarray) or masks.shape != expected or masks.dtype != np.bool_:
            is_array = isinstance(masks, np.ndarray)
            form = f"{list(masks.shape)} {masks.dtype}" if is_array else f"a {type(masks).__name__}"
            raise ValueError(f"the answer to {sample.sample_id} is {form}; expected {list(expected)} bool, of numpy")
        folder, files = self.folder(sample), self._files(sample)
        with atomic_folder(folder, replace=True) as part:
            for file, mask in zip(files, masks, strict=True):
                Image.fromarray(mask.astype(np.uint8) * 255).save(part / file.name)
        return folder

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
