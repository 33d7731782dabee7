"""What the commands leave on disk. Every file appears whole or not at all."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from maskselect.ops.atomic import atomic_files
from maskselect.ops.text import json_bytes, readable
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


def answer_stems(image: Path, prompts: int) -> list[str]:
    """The stem of each prompt's files: the image's own, or that with .1, .2, … behind it for several prompts."""
    return [image.stem] if prompts == 1 else [f"{image.stem}.{number}" for number in range(1, prompts + 1)]


def refuse_overwriting(images: Sequence[Path], folder: Path, prompts: int = 1) -> None:
    """Raises ValueError when an answer in `folder` would take the place of one of the images."""
    stems = (stem for image in images for stem in answer_stems(image, prompts))
    written = {path.resolve() for stem in stems for path in answer_paths(folder, stem)}
    if hit := next((image for image in images if image.resolve() in written), None):
        raise ValueError(f"the answers would overwrite the image {hit}; expected another output folder")


def write_answers(groups: Sequence[MaskGroup], folder: Path, image: Path, model: str) -> None:
    """Three files for each prompt of one image, all of them made before the first is put in place.

    `.json`: image, size [h, w], prompt, model, threshold, no_target, candidates, masks (see `MaskGroup.to_json`). Bytes
        of a file's name that are not UTF-8 stand as `\\xff` in it.
    `.mask.png`: the union, 8-bit, 0 or 255, at the image's own size.  `.overlay.png`: see `MaskGroup.overlay`.
    """
    writers: dict[Path, Callable[[BinaryIO], Any]] = {}
    for stem, group in zip(answer_stems(image, len(groups)), groups, strict=True):
        json_path, mask_path, overlay_path = answer_paths(folder, stem)
        writers[overlay_path] = partial(_write_overlay, group)
        writers[mask_path] = partial(_write_mask, group)
        writers[json_path] = partial(_write_record, group, image, model)
    _write_together(writers)


def _write_overlay(group: MaskGroup, file: BinaryIO) -> None:
    group.overlay().save(file, format="PNG", compress_level=3)


def _write_mask(group: MaskGroup, file: BinaryIO) -> None:
    file.write(group.mask_png())


def _write_record(group: MaskGroup, image: Path, model: str, file: BinaryIO) -> None:
    file.write(json_bytes(group.to_json(readable(str(image)), model)))


def refuse_replacing_other(path: Path, own: Mapping[str, Any], what: str) -> None:
    """Raises ValueError when the file `path` is there and neither it nor each of its rows says what `own` says.

    own: entries of the JSON that will be written there, by which it is known again.  what: it is, for the message.
    """
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    if not _states(found, own):
        raise ValueError(f"{path} holds something else than {what}; expected another --output, or --overwrite")


def _states(found: Any, own: Mapping[str, Any]) -> bool:
    if not isinstance(found, dict) or not found:
        return False
    return own.items() <= found.items() or all(_states(row, own) for row in found.values())


def write_json(record: dict[str, Any], path: Path) -> None:
    """One JSON file."""
    _write_together({path: lambda file: file.write(json_bytes(record))})


def _write_together(writers: dict[Path, Callable[[BinaryIO], Any]]) -> None:
    """Writes each file beside its place, then moves all of them there; on an error none is left."""
    with atomic_files(*writers) as parts:
        for part, write in zip(parts, writers.values(), strict=True):
            with part.open("wb") as file:
                write(file)
