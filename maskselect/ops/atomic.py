"""Atomic writes: a file or a folder appears under its name whole or not at all.

Everything is written under a temporary name in the same folder and renamed when it is complete. The names are random,
because processes in two containers that share a volume may have the same process id. Files get the permissions that
the user's umask asks for.
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
"""Ending of every temporary name; its first character is a dot."""

_NAME_BYTES = 160  # of the final name that the temporary one repeats: a file name has 255 bytes at most
_ABANDONED = 24 * 3600  # seconds without a write, where the file system has no locks


@contextmanager
def atomic_files(*paths: Path, durable: bool = False) -> Iterator[list[Path]]:
    """Temporary files to write into, one for each of `paths`, renamed together when the block ends without an error.

    The first gets its name only after all of them are written. After an error none is left. The folders must exist.

    Args:
        paths: final names; files that are there are replaced.
        durable: flush to disk before renaming, so that the files also survive a power failure.

    Raises:
        OSError: a file cannot be written, or one of `paths` is a folder.
    """
    parts: list[tuple[Path, int, int]] = []
    try:
        for path in paths:
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder; expected a file, or a name that is free")
            parts.append(_created(path))
        yield [part for part, _, _ in parts]
        for part, _, mode in parts:
            if stat.S_IMODE(part.stat().st_mode) != mode:  # some libraries write files that only their owner can read
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
    """A temporary file to write into, which gets the name `path` when the block ends without an error.

    See `atomic_files`.
    """
    with atomic_files(path, durable=durable) as (part,):
        yield part


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write a text file in UTF-8, names of files that are not UTF-8 too. See `readable` and `atomic_files`."""
    with atomic_file(path, durable) as part:
        part.write_text(readable(text), encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, replace: bool = False, durable: bool = False) -> Iterator[Path]:
    """A temporary folder to write into, which gets the name `path` when the block ends without an error.

    The folders above are made. After an error nothing is left.

    Args:
        path: final name.
        replace: take the place of a folder that is there, which is removed. Otherwise only of an empty one.
        durable: flush the files to disk before renaming.

    Raises:
        ValueError: without `replace`, when `path` is there and is not an empty folder.
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
    """Raise ValueError when something is at `path` that is not an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} is there already; expected a folder that is not, or is empty")


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove what killed writers left in `folder` of files whose names begin with one of `names`.

    The temporary files of writers that are still at work, in whatever container, stay.
    """
    for file in folder.glob(f".*{SUFFIX}"):
        if file.name[1:].startswith(names) and _is_abandoned(file):
            file.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    whole = os.fsencode(path.name)
    # In the locale's own encoding; a letter that is cut in two is left out.
    name = path.name if len(whole) <= _NAME_BYTES else whole[:_NAME_BYTES].decode(sys.getfilesystemencoding(), "ignore")
    return path.with_name(f".{name}.{uuid4().hex}{SUFFIX}")


def _created(path: Path) -> tuple[Path, int, int]:
    """A new empty temporary file: its name, an open descriptor that holds its lock, and its permissions."""
    part = _temporary(path)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    if fcntl is not None:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return part, descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode)


def _is_abandoned(file: Path) -> bool:
    """Whether the process that wrote a temporary file has ended: its lock is free."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:  # gone, or another user's
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
            path.rmdir()  # an empty one; not every system lets a folder take its place
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
