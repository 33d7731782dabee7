"""The files that commands write. Every file appears whole or not at all."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from maskselect.ops.atomic import atomic_files
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


def answer_paths(folder: Path, stem: str) -> tuple[Path, Path, Path]:
    """The files of an answer: JSON, mask, overlay."""
    return folder / f"{stem}.json", folder / f"{stem}.mask.png", folder / f"{stem}.overlay.png"


def answer_stems(image: Path, prompts: int) -> list[str]:
    """The stem of each prompt's files: the image's own, with .1, .2, … added for several prompts."""
    return [image.stem] if prompts == 1 else [f"{image.stem}.{number}" for number in range(1, prompts + 1)]


def refuse_overwriting(images: Sequence[Path], folder: Path, prompts: int = 1) -> None:
    """Raise ValueError if an answer in `folder` would replace one of the images."""
    stems = (stem for image in images for stem in answer_stems(image, prompts))
    written = {path.resolve() for stem in stems for path in answer_paths(folder, stem)}
    if hit := next((image for image in images if image.resolve() in written), None):
        raise ValueError(f"the answers would overwrite the image {hit}; expected another output folder")


def write_answers(groups: Sequence[MaskGroup], folder: Path, image: Path, model: str) -> None:
    """Write three files per prompt of one image, all or none of them.

    `.json`: image, size [h, w], prompt, model, threshold, no_target, candidates, masks (see `MaskGroup.to_json`); bytes
        of a file's name that are not UTF-8 are written as `\\xff`.
    `.mask.png`: the union, 8-bit, 0 or 255, at the image's own size.  `.overlay.png`: see `MaskGroup.overlay`.
    """
    contents: dict[Path, bytes] = {}
    for stem, group in zip(answer_stems(image, len(groups)), groups, strict=True):
        json_path, mask_path, overlay_path = answer_paths(folder, stem)
        overlay = BytesIO()
        group.overlay().save(overlay, format="PNG", compress_level=3)
        contents[overlay_path] = overlay.getvalue()
        contents[mask_path] = group.mask_png()
        contents[json_path] = json_bytes(group.to_json(readable(str(image)), model))
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
