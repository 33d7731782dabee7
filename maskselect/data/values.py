"""Values of annotation files in the forms in which tools write them: one reading for all data sets.

An id may be 7, 7.0 or "7"; a height 480, 480.0 or "480"; a flag 0, 1, false or true. Every reader compares ids and
sizes only after they went through these functions.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Key = int | str

_LARGEST = 2**63  # an SQLite integer has 64 bits
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def whole(value: Any) -> int | None:
    """A whole number written as 7, 7.0 or "7"; None for anything else.

    >>> whole(7.0), whole("7"), whole("07"), whole(7.5), whole(True)
    (7, 7, None, None, None)
    """
    if isinstance(value, bool):
        return None
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _INTEGER.fullmatch(value)):
        value = int(value)
    return value if isinstance(value, int) and abs(value) < _LARGEST else None


def key_of(value: Any) -> Key:
    """An id: a whole number where it is one, in whatever form it is written, or else the text.

    Raises ValueError for anything else.

    >>> key_of("12"), key_of(12.0), key_of("000012"), key_of("a.jpg")
    (12, 12, '000012', 'a.jpg')
    """
    number = whole(value)
    if number is not None:
        return number
    if not isinstance(value, str):
        raise ValueError(f"the id {str(value)[:40]!r} is neither a whole number nor a text")
    return value


def flag_of(value: Any, name: str) -> bool:
    """A flag: 0, 1, false, true or null. Raises ValueError for anything else, such as the text "false"."""
    if value is None or isinstance(value, bool):
        return bool(value)
    number = whole(value)
    if number not in (0, 1):
        raise ValueError(f"{name} is {str(value)[:40]!r}; expected 0 or 1, without quotes")
    return bool(number)


def names_of(records: Iterable[Mapping[str, Any]], what: str) -> dict[Key, str]:
    """Names by id. what: of which records, for messages: "category".

    Raises ValueError for a record without a name.
    """
    found: dict[Key, str] = {}
    for record in records:
        name = record.get("name")
        if not isinstance(name, str | int) or not str(name).strip():
            raise ValueError(f"{what} {record.get('id')!r} has the name {str(name)[:40]!r}; expected a text to ask for")
        found[key_of(record["id"])] = str(name)
    return found
