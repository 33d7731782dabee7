"""What the commands leave on disk. Every file appears whole or not at all."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from maskselect.backends.atomic import atomic_files
from maskselect.reports.overlay import draw_overlay
from maskselect.structures.prediction import MaskGroup


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Makes a folder and proves that it can be written to, before any work is done; folders left empty go away again.

    Raises ValueError when it cannot be made or written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _remove_empty(made)
        raise ValueError(
            f"output folder {folder} is not writable ({error.strerror}); expected a folder to write to"
        ) from error
    try:
        yield folder
    finally:
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # innermost first
        try:
            folder.rmdir()
        except OSError:
            return


def answer_paths(folder: Path, stem: str) -> tuple[Path, Path, Path]:
    """Where the answer for an image of that stem goes: JSON, mask, overlay."""
    return folder / f"{stem}.json", folder / f"{stem}.mask.png", folder / f"{stem}.overlay.png"


def refuse_overwriting(images: Sequence[Path], folder: Path) -> None:
    """Raises ValueError when an answer in `folder` would take the place of one of the images."""
    written = {path.resolve() for image in images for path in answer_paths(folder, image.stem)}
    if hit := next((image for image in images if image.resolve() in written), None):
        raise ValueError(f"the answers would overwrite the image {hit}; expected another output folder")


def write_answer(group: MaskGroup, folder: Path, image: Path, model: str) -> None:
    """The three files of the contract for one image, all of them made before the first is put in place.

    `.json`: image, size [h, w], prompt, model, threshold, no_target, candidates, masks (see `MaskGroup.to_coco`).
    `.mask.png`: the union, 8-bit, 0 or 255, at the image's own size.  `.overlay.png`: see `draw_overlay`.
    """
    record = {
        "image": str(image),
        "size": [int(side) for side in group.image.shape[:2]],
        "prompt": group.prompt,
        "model": model,
        "threshold": group.threshold,
        "no_target": group.no_target,
        "candidates": group.candidates,
        "masks": group.to_coco(),
    }
    union = Image.fromarray(group.mask.astype(np.uint8) * np.uint8(255))
    overlay = draw_overlay(group)
    json_path, mask_path, overlay_path = answer_paths(folder, image.stem)
    _write_together(
        {
            overlay_path: lambda file: overlay.save(file, format="PNG", compress_level=3),
            mask_path: lambda file: union.save(file, format="PNG"),
            json_path: lambda file: file.write(_json_bytes(record)),
        }
    )


def write_json(record: dict[str, Any], path: Path) -> None:
    """One JSON file."""
    _write_together({path: lambda file: file.write(_json_bytes(record))})


def _json_bytes(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write_together(writers: dict[Path, Callable[[BinaryIO], Any]]) -> None:
    """Writes each file beside its place, then moves all of them there; on an error none is left."""
    with atomic_files(*writers) as parts:
        for part, write in zip(parts, writers.values(), strict=True):
            with part.open("wb") as file:
                write(file)
