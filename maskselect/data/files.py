"""Reading files of data sets safely: JSON, pickles of plain containers, images in one of several folders, zips.

Nothing in a file is executed, and no name in it leads out of its folder. Errors name the file.
"""

import io
import json
import pickle
import pickletools
import re
import shutil
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from maskselect.data.values import by_key
from maskselect.ops.atomic import atomic_file

_POINTER = b"version https://git-lfs.github.com/spec/"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark, or in Windows-1252, as some annotations are.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not JSON, or an object in it has a key twice.
    """
    refuse_missing(path)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    try:
        return json.loads(text, object_pairs_hook=partial(_object, path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON (truncated?): {error}") from error


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        by_key(pairs, lambda pair: pair[0], path, "entry of an object,", "key")  # raises
    return record


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class and function; without them a pickle cannot run anything."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of lists, dicts, tuples, sets, strings and numbers, such as REFER's, without running anything.

    Strings of Python 2 are read as Latin-1.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no plain pickle, or has a memo number beyond its length, which would reserve much memory.
    """
    refuse_missing(path)
    data = path.read_bytes()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("PUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(data):
                raise ValueError(f"it holds {opcode.name} {argument}")
        return _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    except (ValueError, pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a pickle of plain lists, dicts, texts and numbers: {error}") from error
    except (AttributeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not a readable pickle: {type(error).__name__}") from error


def inside(root: Path, name: str, what: str = "file") -> Path:
    """`root / name` for a `name` from an annotation. Links on the disk are followed.

    Raises:
        ValueError: the name is empty, absolute, a web address, or has a drive letter or `..`.
    """
    parts = PurePosixPath(str(name).replace("\\", "/"))
    if not str(name).strip() or "\0" in str(name):
        raise ValueError(f"{what} name {str(name)!r} under {root} is not a file name")
    if cause := _leads_out(str(name), parts):
        remedy = "download it, and write" if cause == "is a web address" else "write"
        raise ValueError(
            f"{what} name {str(name)!r} {cause}, so it leads out of its folder {root}; {remedy} a name relative to it"
        )
    return root.joinpath(*parts.parts)


def _leads_out(name: str, parts: PurePosixPath) -> str:
    if _ADDRESS.match(name):
        return "is a web address"
    if parts.is_absolute() or (parts.parts and parts.parts[0].endswith(":")):
        return "is an absolute path"
    return "holds '..'" if ".." in parts.parts else ""


def find_one(root: Path, choices: Sequence[str], what: str, help_text: str) -> Path:
    """The first of `choices` (relative to root) that exists.

    Raises:
        FileNotFoundError: none exists; the message names them and has `help_text`, how to get the data.
    """
    for choice in choices:
        if (root / choice).exists():
            return root / choice
    looked = " or ".join(choices)
    raise FileNotFoundError(f"no {what} in {root}: looked for {looked}; {help_text}")


class Images:
    """Images by name, from the first of several folders that has the name.

    Raises:
        FileNotFoundError: none of the folders exists.
    """

    def __init__(self, roots: Sequence[Path], help_text: str = "") -> None:
        self.roots = [root for root in roots if root.exists()]
        if not self.roots:
            looked = " or ".join(str(root) for root in roots)
            raise FileNotFoundError(f"no image folder: looked for {looked}" + (f"; {help_text}" if help_text else ""))

    def find(self, name: str) -> Path:
        """The file of an image.

        Raises:
            FileNotFoundError: no folder has it.
            ValueError: the name leads out of the folder.
        """
        for root in self.roots:
            path = inside(root, name, "image")
            if path.is_file():
                return path
        raise FileNotFoundError(f"image {name!r} is in none of {', '.join(str(root) for root in self.roots)}")


def unpack(archive: Path, folder: Path, inner: str = "") -> list[Path]:
    """Unpack a zip into a folder, each file whole or not at all. Files that exist are skipped.

    Args:
        archive: the zip.
        folder: the target.
        inner: if the archive has a folder of this name, unpack only its content, without the folder's name.

    Returns:
        The files.

    Raises:
        ValueError: a member is a link or leads out of the folder, or the archive is damaged. Nothing is written.
    """
    refuse_missing(archive)
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [m for m in zipped.infolist() if not m.is_dir()]
            below = f"{inner}/" if any(m.filename.startswith(f"{inner}/") for m in members) else ""
            members = [m for m in members if m.filename.startswith(below)]
            names = [member.filename.removeprefix(below) for member in members]
            targets = [inside(folder, name, f"{archive.name} member") for name in names]
            links = [m.filename for m in members if (m.external_attr >> 16) & 0o170000 == 0o120000]
            if links:
                raise ValueError(f"{archive} holds the link {links[0]!r}; expected plain files")
            for member, target in zip(members, targets, strict=True):
                _write_member(zipped, member, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{archive} is truncated or not a zip: {error}") from error
    return targets


def _write_member(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if target.is_file() and target.stat().st_size == member.file_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as part, zipped.open(member) as source, part.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def refuse_missing(path: Path) -> None:
    """Raise FileNotFoundError without the file, ValueError for a Git LFS pointer."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or not a file")
    refuse_pointer(path, f"file {path}")


def refuse_pointer(path: Path, name: str) -> None:
    """Raise ValueError for a Git LFS pointer, the text in place of a large file until `git lfs pull` fetches it.

    Args:
        path: a file; one that cannot be opened passes.
        name: the file's name in the message.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except OSError:  # the error of the later reader is clearer
        return
    if head == _POINTER:
        raise ValueError(f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` where it lies")
