"""The contents of a TIFF that Pillow cannot read, from its header, for error messages."""

import struct
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _FORMAT = 256, 257, 258, 259, 277, 339  # tags
_KINDS = {1: "unsigned integer", 2: "signed integer", 3: "float"}
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def unsupported(file: Path | BinaryIO) -> str:
    """The reason why Pillow cannot read a file, as the end of a sentence that begins with its name."""
    try:
        if isinstance(file, Path):
            with file.open("rb") as opened:
                bands = _bands(opened)
        else:
            bands = _bands(file)
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error):
        bands = None
    if bands is None:
        return "is not an image, or its header is damaged; expected PNG, JPEG, …"
    return (
        f"is a TIFF of {bands}, which is not supported; expected one band of 8, 16 or 32 bits, or three or four bands "
        "of 8 bits, red, green and blue first"
    )


def _bands(file: BinaryIO) -> str | None:
    """For example "5 bands of 32-bit float"; None for a file that is no TIFF."""
    file.seek(0)
    head = file.read(8)
    if head[:4] not in _MAGIC:
        return None
    if b"+" in head[2:4]:
        head += file.read(8)
    tags = ImageFileDirectory_v2(head)
    file.seek(tags.next)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a truncated directory
        tags.load(file)
    if not {_WIDTH, _HEIGHT, _BITS} <= set(tags):
        return None
    count = int(tags.get(_SAMPLES, 1))
    bits, kind = (value[0] if isinstance(value, tuple) else value for value in (tags[_BITS], tags.get(_FORMAT, 1)))
    known = tags.get(_COMPRESSION, 1) in (1, 5, 7, 8, 32946, 32773)
    compressed = "" if known else f", compression {tags[_COMPRESSION]}"
    return f"{count} band{'s' * (count != 1)} of {bits}-bit {_KINDS.get(kind, 'complex')}{compressed}"
