"""Texts as people give them, with what nobody sees taken out, and JSON that UTF-8 can write."""

import json
import re
import unicodedata
from typing import Any

_INSIDE_SCRIPTS = "\u200c\u200d\ufe00-\ufe0f"
"""Joiners and variation selectors: part of the spelling in some scripts and emoji, nothing beside ASCII."""
_STRAY = re.compile(f"(?<![^\\x00-\\x7f])[{_INSIDE_SCRIPTS}]+|[\u200c\u200d]+(?![^\\x00-\\x7f])")
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
_SAME = str.maketrans(
    {"\u2010": "-", "\u2011": "-", "\u034f": "", "\u17b4": "", "\u17b5": ""} | dict.fromkeys(_BLANK, " ")
)


def tidy(text: str) -> str:
    """A text whose invisible differences are gone.

    Every run of white space and control characters becomes one space, and none stays at either end. Format characters
    (byte order mark, zero-width space, soft hyphen, direction marks) go, but for joiners inside a script that writes
    with them. Hyphens that differ only in where a line may break become "-", and letters are composed (NFC).

    Raises ValueError for a lone surrogate, which no encoding can write.
    """
    lone = next((letter for letter in text if "\ud800" <= letter <= "\udfff"), None)
    if lone is not None:
        raise ValueError(f"the text holds the lone surrogate \\u{ord(lone):04x}; expected text that UTF-8 can write")
    kept = "".join(map(_visible, _STRAY.sub("", text.translate(_SAME))))
    return " ".join(unicodedata.normalize("NFC", kept).split())


def readable(text: str) -> str:
    """A file's name, or a text with one in it, so that UTF-8 can write it: bytes that are not UTF-8 become `\\xff`."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that no file's name gives
        return text.encode("utf-8", "backslashreplace").decode()


def json_bytes(record: Any) -> bytes:
    """A record as the bytes of a JSON file; texts that UTF-8 cannot write become what `readable` makes of them."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        return (text + "\n").encode()
    except UnicodeEncodeError:  # the name of a file that is not UTF-8, somewhere in it
        return json_bytes(_readable(record))


def _readable(record: Any) -> Any:
    if isinstance(record, dict):
        return {_readable(key): _readable(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [_readable(value) for value in record]
    return readable(record) if isinstance(record, str) else record


def _visible(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cc":
        return " "
    return "" if category == "Cf" and letter not in _INSIDE_SCRIPTS else letter
