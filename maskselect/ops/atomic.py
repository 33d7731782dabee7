"""Atomic writes of files and folders.

The content is written under a temporary name in the same folder and renamed when it is complete. The names are random,
because processes in two containers that share a volume may have the same process id. Files get the permissions of the
user's umask.
"""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from uuid import uuid4

from maskselect.ops.text import readable

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".part"
"""Suffix of every temporary name; the name starts with a dot."""

_NAME_BYTES = 160  # of the final name in the temporary one; file names are limited to 255 bytes
_ABANDONED = 24 * 3600  # seconds without a write, on a file system without locks


@contextmanager
def atomic_files(*paths: Path, durable: bool = False) -> Iterator[list[Path]]:
    """Yield one temporary file for each of `paths`, and rename them when the block ends without an error.

    No file is renamed before all are complete. After an error all are removed. The folders must exist.

    Args:
        paths: final names; existing files are replaced.
        durable: flush to disk before renaming, so that the files survive a power failure.

    Raises:
        OSError: a file cannot be written, or one of `paths` is a folder.
    """
    parts: list[tuple[Path, int, int]] = []
    try:
        for path in paths:
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder; expected a file or a free name")
            parts.append(_created(path))
        yield [part for part, _, _ in parts]
        for part, _, mode in parts:
            if stat.S_IMODE(part.stat().st_mode) != mode:  # some libraries write files that only the owner can read
                part.chmod(mode)
            if durable:
                _flush(part)
        for (part, _, _), path in zip(parts, paths, strict=True):
            os.replace(part, path)
        if durable:
            for folder in {path.parent for path in paths}:
                _flush(folder)
    finally:
        for part, descriptor, _ in parts:
            os.close(descriptor)
            part.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """`atomic_files` for one file."""
    with atomic_files(path, durable=durable) as (part,):
        yield part


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write a text file in UTF-8 atomically. See `readable` and `atomic_files`."""
    with atomic_file(path, durable) as part:
        part.write_text(readable(text), encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, replace: bool = False, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary folder, and rename it to `path` when the block ends without an error.

    Parent folders are created. After an error the temporary folder is removed.

    Args:
        path: final name.
        replace: replace an existing folder; otherwise only an empty one.
        durable: flush the files to disk before renaming.

    Raises:
        ValueError: without `replace`, `path` exists and is not an empty folder.
        OSError: the folder cannot be written.
    """
    if not replace:
        refuse_filled(path)
    part = _temporary(path)
    try:
        part.mkdir(parents=True)
        yield part
        if durable:
            for file in (*part.rglob("*"), part):
                _flush(file)
        _rename_folder(part, path, replace)
        if durable:
            _flush(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def refuse_filled(path: Path) -> None:
    """Raise ValueError if `path` exists and is not an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} is there already; expected a new or an empty folder")


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove temporary files of killed writers in `folder` whose final names start with one of `names`.

    The files of running writers stay, in other containers too.
    """
    for file in folder.glob(f".*{SUFFIX}"):
        if file.name[1:].startswith(names) and _is_abandoned(file):
            file.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    encoded = os.fsencode(path.name)
    name = path.name
    if len(encoded) > _NAME_BYTES:  # an incomplete last character is omitted
        name = encoded[:_NAME_BYTES].decode(sys.getfilesystemencoding(), "ignore")
    return path.with_name(f".{name}.{uuid4().hex}{SUFFIX}")


def _created(path: Path) -> tuple[Path, int, int]:
    """A new empty temporary file: its path, an open descriptor with its lock, and its permissions."""
    part = _temporary(path)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    if fcntl is not None:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return part, descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode)


def _is_abandoned(file: Path) -> bool:
    """Whether the writer of a temporary file has ended, by its lock."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:  # removed, or of another user
        return False
    try:
        if fcntl is None:
            raise OSError
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return time() - os.fstat(descriptor).st_mtime > _ABANDONED
    finally:
        os.close(descriptor)


def _rename_folder(part: Path, path: Path, replace: bool) -> None:
    while True:
        with suppress(OSError):
            path.rmdir()  # an empty folder; some systems cannot replace it
        try:
            os.replace(part, path)
            return
        except OSError:
            if not path.is_dir():
                raise
            if not replace:
                refuse_filled(path)
        old = _temporary(path)
        try:
            with suppress(FileNotFoundError):  # another process moved it
                os.replace(path, old)
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
