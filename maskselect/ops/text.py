"""Removes invisible differences of texts, and writes JSON in UTF-8."""

import json
import re
import unicodedata
from typing import Any

_INSIDE_SCRIPTS = "\u200c\u200d\ufe00-\ufe0f"
"""Joiners and variation selectors: they matter in some scripts and emoji, but not next to ASCII."""
_STRAY = re.compile(f"(?<![^\\x00-\\x7f])[{_INSIDE_SCRIPTS}]+|[\u200c\u200d]+(?![^\\x00-\\x7f])")
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
_SAME = str.maketrans(
    {"\u2010": "-", "\u2011": "-", "\u034f": "", "\u17b4": "", "\u17b5": ""} | dict.fromkeys(_BLANK, " ")
)


def tidy(text: str) -> str:
    """Normalise invisible differences in a text.

    Runs of white space and control characters become one space, and both ends are stripped. Format characters (byte
    order mark, zero-width space, soft hyphen, direction marks) are removed, except joiners in scripts that use them.
    Non-breaking hyphens become "-", and letters are composed (NFC).

    Raises:
        ValueError: the text has a lone surrogate, which no encoding supports.
    """
    lone = next((letter for letter in text if "\ud800" <= letter <= "\udfff"), None)
    if lone is not None:
        raise ValueError(f"the text holds the lone surrogate \\u{ord(lone):04x}; expected text that UTF-8 can write")
    kept = "".join(map(_visible, _STRAY.sub("", text.translate(_SAME))))
    return " ".join(unicodedata.normalize("NFC", kept).split())


def readable(text: str) -> str:
    """A text with file names in a form that UTF-8 can encode: bytes that are not UTF-8 become `\\xff`."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that is not from a file name
        return text.encode("utf-8", "backslashreplace").decode()


def json_bytes(record: Any) -> bytes:
    """A record as the bytes of a JSON file. Texts that UTF-8 cannot encode are converted by `readable`."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        return (text + "\n").encode()
    except UnicodeEncodeError:  # it contains a file name that is not UTF-8
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
