"""Annotation files that others wrote: read without running them, without leaving the folder, with one clear sentence.

JSON, Python pickles of plain containers, images in one of several folders, zips. Everything here raises ValueError or
FileNotFoundError that names the file.
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

from maskselect.data.keys import by_key
from maskselect.data.pointers import refuse_pointer
from maskselect.ops.atomic import atomic_file

_PLAIN_OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "INT",
    "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET", "GET",
    "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
})  # fmt: skip
"""What lists, dicts, tuples, strings and numbers are made of. Everything that names, calls or builds is not here."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def read_json(path: Path) -> Any:
    """A JSON file, UTF-8 (with or without a byte order mark) or, as some published annotations are, Windows-1252.

    Raises FileNotFoundError when there is no file, ValueError when it is not JSON.
    """
    _there(path)
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
    """A JSON object. Raises ValueError when it has a key twice, of which Python keeps the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        by_key(pairs, lambda pair: pair[0], path, "entry of an object,", "key")
    return found


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """No class is plain; the opcodes that ask are refused before, so this is the second lock."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """A pickle of lists, dicts, tuples, sets, strings and numbers, such as REFER's, without running anything in it.

    The opcodes are read first: one that names a class or calls something, or a memo number beyond the file's length
    (which would reserve memory for as many), is refused. Strings of Python 2 are read as Latin-1.
    Raises FileNotFoundError when there is no file, ValueError for anything else than a plain pickle.
    """
    _there(path)
    data = path.read_bytes()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _PLAIN_OPCODES:
                raise ValueError(f"it holds {opcode.name} {argument if argument is not None else ''}".rstrip())
            if opcode.name in ("PUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(data):
                raise ValueError(f"it holds {opcode.name} {argument}")
        return _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    except (ValueError, pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a pickle of plain lists, dicts, texts and numbers: {error}") from error
    except (AttributeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not a readable pickle: {type(error).__name__}") from error


def inside(root: Path, name: str, what: str = "file") -> Path:
    """`root / name`, where `name` comes out of an annotation. Raises ValueError when it leads out of `root`.

    `name` is taken as written: absolute names, drive letters and `..` are refused without looking at the disk, links
    that lead elsewhere are the user's own and are followed.
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

    Raises FileNotFoundError naming what was looked for, where, and how to get it.
    """
    for choice in choices:
        if (root / choice).exists():
            return root / choice
    looked = " or ".join(choices)
    raise FileNotFoundError(f"no {what} in {root}: looked for {looked}; {help_text}")


class Images:
    """Images by name, in the first of several folders that holds it.

    Raises FileNotFoundError when none of the folders exists.
    """

    def __init__(self, roots: Sequence[Path], help_text: str = "") -> None:
        self.roots = [root for root in roots if root.exists()]
        if not self.roots:
            looked = " or ".join(str(root) for root in roots)
            raise FileNotFoundError(f"no image folder: looked for {looked}" + (f"; {help_text}" if help_text else ""))

    def find(self, name: str) -> Path:
        """The file of an image.

        Raises FileNotFoundError when no folder has it, ValueError for a name that leads out.
        """
        for root in self.roots:
            path = inside(root, name, "image")
            if path.is_file():
                return path
        raise FileNotFoundError(f"image {name!r} is in none of {', '.join(str(root) for root in self.roots)}")


def unpack(archive: Path, folder: Path, inner: str = "") -> list[Path]:
    """Unpack a zip into a folder, files whole or not at all, skipping those that are there. Gives the files.

    inner: where the archive holds a folder of this name, only what is in it is unpacked, without the folder's name.

    Raises ValueError, before anything is written, when a member leads out of the folder or is a link, or the archive is
    damaged.
    """
    _there(archive)
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


def _there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or not a file")
    refuse_pointer(path, f"file {path}")
