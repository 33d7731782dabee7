"""Draws text of any script, because Pillow's font has only ASCII.

Fonts in order of preference: Pillow's; that of OpenCV 5 and newer (Latin, Greek, Cyrillic, Hebrew, Arabic, Chinese,
Japanese, Korean); common system fonts. A character that no font has is drawn as its code point, such as \\u0e01.
"""

import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_UNASSIGNED = "\u0378"  # no font has it, so it looks like a missing character
_KNOWN = (
    "DejaVuSans", "NotoSans-Regular", "NotoSansCJK-Regular", "wqy-microhei", "DroidSansFallbackFull", "arial",
    "Arial Unicode", "segoeui", "msyh", "msgothic", "malgun", "PingFang", "NotoSansArabic-Regular",
    "NotoSansHebrew-Regular", "NotoSansDevanagari-Regular", "NotoSansThai-Regular",
)  # fmt: skip
"""File names without suffix, those with the most characters first. Pillow searches the system's font folders."""

_FOLLOWING = ("Mn", "Me", "Cf")
"""Unicode categories of characters that combine with the one before."""


class _Face(Protocol):
    """One font at one size."""

    def has(self, character: str) -> bool: ...

    def length(self, text: str) -> float: ...

    def draw(self, picture: Image.Image, xy: tuple[float, float], text: str, fill: Colour) -> None:
        """Draw text; `xy` is the left end of the base line."""
        ...


class _Pillow:
    def __init__(self, font: Any) -> None:
        self.font = font
        self.missing = bytes(font.getmask(_UNASSIGNED))

    def has(self, character: str) -> bool:
        return bytes(self.font.getmask(character)) != self.missing

    def length(self, text: str) -> float:
        return float(self.font.getlength(text))

    def draw(self, picture: Image.Image, xy: tuple[float, float], text: str, fill: Colour) -> None:
        ImageDraw.Draw(picture).text(xy, text, font=self.font, fill=fill, anchor="ls")


class _OpenCv:
    """The "uni" font of OpenCV 5."""

    def __init__(self, size: float) -> None:
        self.size = round(size)
        self.missing = self._shape(_UNASSIGNED)

    def has(self, character: str) -> bool:
        return not np.array_equal(self._shape(character), self.missing)

    def length(self, text: str) -> float:
        return float(self._shape(text).shape[1])

    def draw(self, picture: Image.Image, xy: tuple[float, float], text: str, fill: Colour) -> None:
        picture.paste(fill, (round(xy[0]), round(xy[1]) - 2 * self.size), Image.fromarray(self._shape(text)))

    def _shape(self, text: str) -> np.ndarray:
        """The text in white on black at its own width, with the base line two sizes below the top."""
        box = (8, 3 * self.size), (0, 2 * self.size)
        width = cv2.getTextSize(box[0], text, box[1], cv2.FontFace("uni"), self.size)[2]
        shape = np.zeros((3 * self.size, max(1, width)), np.uint8)
        cv2.putText(shape, text, box[1], 255, cv2.FontFace("uni"), self.size)
        return shape


class Lettering:
    """Draws text of one size in pixels."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.font: Any = ImageFont.load_default(size)

    def length(self, text: str) -> float:
        """Width of a text in pixels."""
        return sum(face.length(part) for face, part in self._parts(text))

    def draw(self, picture: Image.Image, xy: tuple[float, float], text: str, fill: Colour) -> None:
        """Draw a text; `xy` is its left end and the top of the line."""
        x, y = xy[0], xy[1] + self.font.getmetrics()[0]
        for face, part in self._parts(text):
            face.draw(picture, (x, y), part, fill)
            x += face.length(part)

    def _parts(self, text: str) -> Iterator[tuple[_Face, str]]:
        """Split a text into runs of one face each. One face for the whole text is preferred."""
        faces = _faces(self.size)
        whole = next((face for face in faces if all(_has(face, letter) for letter in text)), None)
        if whole is not None:
            yield whole, text
            return
        run, current, escaped = "", faces[0], False
        for letter in text:
            follows = unicodedata.category(letter) in _FOLLOWING
            face = None if follows and escaped else next((f for f in (current, *faces) if _has(f, letter)), None)
            escaped = face is None
            shown = letter.encode("ascii", "backslashreplace").decode() if escaped else letter
            face = face or faces[0]
            if run and face is not current:
                yield current, run
                run = ""
            run, current = run + shown, face
        yield current, run


def _has(face: _Face, letter: str) -> bool:
    """Whether a face can draw a letter. Combining characters and spaces fit every face."""
    return unicodedata.category(letter) in (*_FOLLOWING, "Zs") or _has_glyph(face, letter)  # type: ignore[arg-type]


@lru_cache(maxsize=4096)
def _has_glyph(face: _Face, letter: str) -> bool:
    return face.has(letter)


@lru_cache(maxsize=8)
def _faces(size: float) -> list[_Face]:
    faces: list[_Face] = [_Pillow(ImageFont.load_default(size))]
    if hasattr(cv2, "FontFace") and cv2.FontFace().set("uni"):
        faces.append(_OpenCv(size))
    return [*faces, *(_Pillow(ImageFont.truetype(file, size)) for file in _system_fonts())]


@lru_cache(maxsize=1)
def _system_fonts() -> list[str]:
    """Files of the `_KNOWN` fonts that this machine has."""
    files = []
    for name in _KNOWN:
        with suppress(OSError):
            files.append(str(ImageFont.truetype(name, 12).path))
    return files
