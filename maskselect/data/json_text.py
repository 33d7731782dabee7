"""JSON files as tools write them, opened for a parser of strict JSON: without a byte order mark, without NaN.

`"area": NaN` and `Infinity` are no JSON, but Python's and JavaScript's writers give them; each is read as null.
"""

import io
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, BinaryIO

from maskselect.backends.optional import lazy

ijson = lazy("ijson", "data")


_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_BLOCK, _TAIL = 1 << 20, 1 << 12
# A text in quotes, perhaps one that goes on in the next block, or one of the words outside of texts.
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?P<end>"|\\?\Z)|-?\b(?:NaN|Infinity)\b', re.DOTALL)
# The end of a block that may be the first half of an escape or of a word.
_UNSURE = re.compile(rb"(?:\\+|[-A-Za-z]{1,16})?\Z")


@contextmanager
def open_json(path: Path) -> Iterator[BinaryIO]:
    """The file for a streaming parser. Raises ValueError for UTF-16."""
    with path.open("rb") as file:
        head = file.read(len(_BOM))
        if head.startswith(_WIDE):
            raise ValueError(f"{path} is in UTF-16; expected UTF-8: save it again in that encoding")
        file.seek(len(_BOM) if head == _BOM else 0)
        state = path.stat()
        yield _Strict(file) if _has_words(path, state.st_size, state.st_mtime_ns) else file  # type: ignore[misc]


def holds(path: Path, words: bytes) -> bool:
    """Whether the bytes occur anywhere in a file, without the file in memory."""
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(words) >= 0


@lru_cache(maxsize=8)  # every section of a file is read in a pass of its own
def _has_words(path: Path, size: int, changed: int) -> bool:
    return holds(path, b"NaN") or holds(path, b"Infinity")


def kind_at(path: Path, name: str) -> str:
    """What stands under a key of the top-level object: "absent", "a list", "an object", "a text", "null", ….

    The whole file is read, so ask only for a message. Raises ValueError when it is not JSON.
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
            raise ValueError(f"{path} is truncated or not JSON: {' '.join(str(error).split())}") from error
    return "absent"


class _Strict(io.RawIOBase):
    """A binary file whose words NaN and Infinity, outside of texts, are null."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._kept, self._in_text, self._ended = file, b"", False, False
        self._ready = io.BytesIO()

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer or a part of it, and gives how many bytes; 0 at the end of the file."""
        count = self._ready.readinto(buffer)
        while count == 0 and len(buffer) and not self._ended:
            self._ready = io.BytesIO(self._next())
            count = self._ready.readinto(buffer)
        return count

    def _next(self) -> bytes:
        """The next block, without what may go on in the one behind it."""
        new = self._file.read(_BLOCK)
        block, self._kept, self._ended = self._kept + new, b"", not new
        found = None if self._ended else _UNSURE.search(block, max(0, len(block) - _TAIL))
        if found:
            block, self._kept = block[: found.start()], block[found.start() :]
        start, self._in_text = b'"' if self._in_text else b"", False
        return _TOKENS.sub(self._replaced, start + block)[len(start) :]

    def _replaced(self, found: re.Match[bytes]) -> bytes:
        if found[0][:1] != b'"':
            return b"null"
        self._in_text = found["end"] != b'"'
        return found[0]
