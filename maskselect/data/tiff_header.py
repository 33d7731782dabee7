"""What a TIFF holds that Pillow cannot read, from its header alone, so that the message can say it."""

import struct
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _FORMAT = 256, 257, 258, 259, 277, 339  # tags
_KINDS = {1: "unsigned integer", 2: "signed integer", 3: "float"}
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def unsupported(file: Path | BinaryIO) -> str:
    """What is wrong with a file that Pillow does not know, as the end of a sentence that begins with its name."""
    try:
        found = _bands(file)
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error):
        found = None
    if found is None:
        return "is not an image, or its header is damaged; expected PNG, JPEG, …"
    return (
        f"is a TIFF of {found}, which is not supported; expected one band of 8, 16 or 32 bits, or three or four bands "
        "of 8 bits, red, green and blue first"
    )


def _bands(file: Path | BinaryIO) -> str | None:
    """For example "5 bands of 32-bit float"; None for a file that is no TIFF."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return _bands(opened)
    file.seek(0)
    head = file.read(8)
    if head[:4] not in _MAGIC:
        return None
    if head[2:4] in (b"+\0", b"\0+"):
        head += file.read(8)
    tags = ImageFileDirectory_v2(head)
    file.seek(tags.next)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a directory that is cut off
        tags.load(file)
    if not {_WIDTH, _HEIGHT, _BITS} <= set(tags):
        return None
    count = int(tags.get(_SAMPLES, 1))
    bits, kind = tags.get(_BITS, (1,)), tags.get(_FORMAT, (1,))
    kind = kind[0] if isinstance(kind, tuple) else kind
    bits = bits[0] if isinstance(bits, tuple) else bits
    compressed = (
        "" if tags.get(_COMPRESSION, 1) in (1, 5, 7, 8, 32946, 32773) else f", compression {tags[_COMPRESSION]}"
    )
    return f"{count} band{'s' * (count != 1)} of {bits}-bit {_KINDS.get(kind, 'complex')}{compressed}"
