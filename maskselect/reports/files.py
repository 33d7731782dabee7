"""The files that commands write. Every file appears whole or not at all."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskselect.ops.atomic import atomic_files, atomic_folder
from maskselect.ops.text import json_bytes, readable
from maskselect.structures.prediction import MaskGroup


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Make a folder and check that it is writable, before any work is done. Folders that stay empty are removed.

    Raises:
        ValueError: it cannot be made or written to.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _remove_empty(created)
        raise ValueError(
            f"output folder {folder} is not writable ({error.strerror}); expected a folder to write to"
        ) from error
    try:
        yield folder
    finally:
        _remove_empty(created)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # innermost first
        try:
            folder.rmdir()
        except OSError:
            return


SUFFIXES = {"json": ".json", "mask": ".mask.png", "overlay": ".overlay.png", "svg": ".svg", "masks": ".masks"}
"""Suffix of an answer's file in each format; `.masks` is a folder."""

DEFAULT_FORMATS = ("json", "mask", "overlay")


def answer_paths(folder: Path, stem: str, formats: Iterable[str] = DEFAULT_FORMATS) -> list[Path]:
    """The files of an answer. Formats without a file for each answer have none."""
    return [folder / f"{stem}{suffix}" for name, suffix in SUFFIXES.items() if name in formats]


def answer_stems(image: Path, prompts: int) -> list[str]:
    """The stem of each prompt's files: the image's own, with .1, .2, … added for several prompts."""
    return [image.stem] if prompts == 1 else [f"{image.stem}.{number}" for number in range(1, prompts + 1)]


def refuse_overwriting(
    images: Sequence[Path], folder: Path, prompts: int = 1, formats: Iterable[str] = DEFAULT_FORMATS
) -> None:
    """Raise ValueError if an answer in `folder` would replace one of the images."""
    stems = (stem for image in images for stem in answer_stems(image, prompts))
    written = {path.resolve() for stem in stems for path in answer_paths(folder, stem, formats)}
    for image in images:
        place = image.resolve()
        if place in written or place.parent in written:
            raise ValueError(f"the answers would overwrite the image {image}; expected another output folder")


def write_answers(
    groups: Sequence[MaskGroup],
    folder: Path,
    image: Path,
    model: str,
    formats: Iterable[str] = DEFAULT_FORMATS,
) -> None:
    """Write the files of the given formats for each prompt of one image, all or none of them.

    `json`: image, size [h, w], prompt, model, threshold, no_target, candidates, masks (see `MaskGroup.to_json`); bytes
        of a file's name that are not UTF-8 are written as `\\xff`.
    `mask`: the union, 8-bit, 0 or 255, at the image's own size.  `overlay`: see `MaskGroup.overlay`.
    `svg`: see `MaskGroup.to_svg`.
    `masks`: a folder with one picture per mask, `00000.png` …, 8-bit, 0 or 255; an existing folder is replaced.
    """
    contents: dict[Path, bytes] = {}
    with ExitStack() as stack:
        for stem, group in zip(answer_stems(image, len(groups)), groups, strict=True):
            if "overlay" in formats:
                overlay = BytesIO()
                group.overlay().save(overlay, format="PNG", compress_level=3)
                contents[folder / f"{stem}{SUFFIXES['overlay']}"] = overlay.getvalue()
            if "mask" in formats:
                contents[folder / f"{stem}{SUFFIXES['mask']}"] = group.mask_png()
            if "svg" in formats:
                contents[folder / f"{stem}{SUFFIXES['svg']}"] = group.to_svg().encode()
            if "json" in formats:
                contents[folder / f"{stem}{SUFFIXES['json']}"] = json_bytes(group.to_json(readable(str(image)), model))
            if "masks" in formats:
                part = stack.enter_context(atomic_folder(folder / f"{stem}{SUFFIXES['masks']}", replace=True))
                for number, mask in enumerate(group):
                    Image.fromarray(mask.view(np.uint8) * 255).save(part / f"{number:05d}.png")
        _write_together(contents)


def refuse_replacing_other(path: Path, entries: Mapping[str, Any], what: str) -> None:
    """Refuse to replace a JSON file unless it, or each of its rows, has the given entries.

    Args:
        path: the file.
        entries: entries that identify the JSON to be written.
        what: its description, for the message.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        content = None
    if not _has_entries(content, entries):
        raise ValueError(f"{path} holds something else than {what}; expected another --output, or --overwrite")


def _has_entries(content: Any, entries: Mapping[str, Any]) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    return entries.items() <= content.items() or all(_has_entries(row, entries) for row in content.values())


def write_json(record: dict[str, Any], path: Path) -> None:
    """Write one JSON file."""
    _write_together({path: json_bytes(record)})


def _write_together(contents: Mapping[Path, bytes]) -> None:
    with atomic_files(*contents) as parts:
        for part, content in zip(parts, contents.values(), strict=True):
            part.write_bytes(content)
