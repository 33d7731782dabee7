"""JSON files as tools write them, for a streaming parser of strict JSON: without byte order mark, NaN and Infinity."""

import io
import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from maskselect.backends.optional import lazy

ijson = lazy("ijson", "data")

_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def open_json(path: Path) -> Iterator[BinaryIO]:
    """Open a file for a streaming parser. A file with NaN or Infinity is read into memory, where these become null.

    Raises:
        ValueError: the file is in UTF-16, or it has NaN or Infinity and is not valid JSON otherwise.
    """
    with path.open("rb") as file:
        head = file.read(len(_BOM))
        if head.startswith(_WIDE):
            raise ValueError(f"{path} is in UTF-16; expected UTF-8: save it again in that encoding")
        file.seek(len(_BOM) if head == _BOM else 0)
        state = path.stat()
        if not _has_words(path, state.st_size, state.st_mtime_ns):
            yield file
            return
        try:
            content = json.loads(file.read().decode(), parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise not_json(path, error) from error
        yield io.BytesIO(json.dumps(content).encode())


def not_json(path: Path, error: BaseException) -> ValueError:
    """The error for a file that cannot be parsed."""
    return ValueError(f"{path} is truncated or not JSON: {' '.join(str(error).split())}")


def holds(path: Path, words: bytes) -> bool:
    """Whether the bytes occur anywhere in a file, without the file in memory."""
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(words) >= 0


@lru_cache(maxsize=8)  # a file is read once per section
def _has_words(path: Path, size: int, changed: int) -> bool:
    return holds(path, b"NaN") or holds(path, b"Infinity")


def kind_at(path: Path, name: str) -> str:
    """The kind of value under a key of the top-level object: "absent", "a list", "an object", "a text", "null", ….

    Reads the whole file, so it is only for messages.

    Raises:
        ValueError: the file is not JSON.
    """
    kinds = {"start_array": "a list", "start_map": "an object", "string": "a text", "null": "null"}
    if not holds(path, f'"{name}"'.encode()):
        return "absent"
    with open_json(path) as file:
        try:
            for prefix, event, _ in ijson.parse(file):
                if prefix == name:
                    return kinds.get(event, f"a {event}")
        except (ijson.JSONError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise not_json(path, error) from error
    return "absent"
