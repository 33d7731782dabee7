"""Label images, a class number for each pixel: reading them, and listing the classes of each image of a folder.

These data sets have no such list, and decoding all images takes minutes. So the list is kept in a file beside the
folder; only images that have changed are read again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskselect.backends.cache import places_beside
from maskselect.backends.progress import track
from maskselect.data.files import refuse_pointer
from maskselect.ops.atomic import write_text

_VERSION = 1
_THREADS = 4  # decoding does not hold Python's lock
_LEFT_OUT = ("_labelTrainIds", "_instanceTrainIds")
"""Endings of files with another numbering beside the published ones."""


def read_label(path: Path) -> np.ndarray:
    """The value of each pixel of a label image, for a palette image its index: (H, W) uint8.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is truncated, or has not one channel of 8 bits.
    """
    refuse_pointer(path, f"label {path}")
    try:
        with Image.open(path) as picture:
            mode, label = picture.mode, np.asarray(picture)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"label {path} is truncated or not an image: {error}") from error
    if mode not in ("L", "P"):
        raise ValueError(f"label {path} is of mode {mode}; expected one channel of 8 bits, or a palette")
    return label


def values_of(label: np.ndarray) -> list[int]:
    """The distinct values of an (H, W) uint8 label, ascending."""
    return [int(value) for value in np.flatnonzero(np.bincount(label.ravel(), minlength=256))]


def present_values(folder: Path) -> dict[str, list[int] | None]:
    """The distinct values of each label image of a folder, by its stem, sorted; None for a damaged image.

    Raises:
        FileNotFoundError: the folder has no label images.
    """
    stamps = _stamps(folder)
    if not stamps:
        raise FileNotFoundError(f"{folder} has no .png files; expected label images")
    cached = _read_cache(folder)
    values_by_name: dict[str, list[int] | None] = {
        name: cached[name][1] for name, stamp in stamps.items() if name in cached and cached[name][0] == stamp
    }
    missing = sorted(stamps.keys() - values_by_name.keys())
    try:
        values_by_name.update(_scanned(folder, missing))
    finally:  # keep the results of an interrupted scan
        if missing:
            known = {name: [stamps[name], values] for name, values in values_by_name.items() if values is not None}
            _write_cache(folder, known)
    return {name: values_by_name[name] for name in sorted(stamps)}


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and modification time of each label image."""
    stamps = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            if suffix == ".png" and not name.endswith(_LEFT_OUT):
                state = entry.stat()
                stamps[name] = [state.st_size, state.st_mtime_ns]
    return stamps


def _scanned(folder: Path, names: list[str]) -> Iterator[tuple[str, list[int] | None]]:
    def scan(name: str) -> tuple[str, list[int] | None]:
        try:
            return name, values_of(read_label(folder / f"{name}.png"))
        except (ValueError, OSError):
            return name, None

    if not names:
        return
    with ThreadPool(_THREADS) as pool:
        yield from track(pool.imap(scan, names, chunksize=8), len(names), f"Reading labels of {folder.name}", "labels")


def _read_cache(folder: Path) -> dict[str, Any]:
    """Stamp and values by name; empty without a valid cache file."""
    for place in _places(folder):
        try:
            content = json.loads(place.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("version") == _VERSION and isinstance(content.get("labels"), dict):
            return {name: row for name, row in content["labels"].items() if _is_row(row)}
    return {}


def _is_row(row: Any) -> bool:
    lists = isinstance(row, list) and len(row) == 2 and all(isinstance(part, list) for part in row)
    return lists and all(isinstance(value, int) for part in row for value in part)


def _write_cache(folder: Path, labels: dict[str, list[Any]]) -> None:
    """Write to the first place that is writable, if any."""
    for place in _places(folder):
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, json.dumps({"version": _VERSION, "labels": labels}, separators=(",", ":")))
            return


def _places(folder: Path) -> list[Path]:
    """As for indexes of annotation files: beside the folder, in the user's cache, or in MASKSELECT_INDEX."""
    digest = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return places_beside(folder, ".classes.json", digest)
