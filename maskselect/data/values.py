"""Ids, flags and names of annotation files in the forms in which tools write them, and keys that must be unique.

An id may be 7, 7.0 or "7"; a height 480, 480.0 or "480"; a flag 0, 1, false or true. Readers compare ids and sizes only
after these functions. A dict keeps the last of two records with one key, so readers check keys with `by_key`.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

Key = int | str
Item = TypeVar("Item")

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
    """An id as int if it is a whole number in any form, else as str.

    Raises:
        ValueError: it is neither.

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
    """A flag: 0, 1, false, true or null.

    Raises:
        ValueError: it is anything else, such as the text "false".
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    number = whole(value)
    if number not in (0, 1):
        raise ValueError(f"{name} is {str(value)[:40]!r}; expected 0 or 1, without quotes")
    return bool(number)


def names_of(records: Iterable[Mapping[str, Any]], what: str) -> dict[Key, str]:
    """Names by id.

    Args:
        records: have `id` and `name`.
        what: the kind of record for messages, such as "category".

    Raises:
        ValueError: a record has no name.
    """
    names: dict[Key, str] = {}
    for record in records:
        name = record.get("name")
        if not isinstance(name, str | int) or not str(name).strip():
            raise ValueError(f"{what} {record.get('id')!r} has the name {str(name)[:40]!r}; expected a text to ask for")
        names[key_of(record["id"])] = str(name)
    return names


def same_key(source: object, what: str, first: int, second: int, field: str, key: object) -> ValueError:
    """The error for two records of one key.

    Args:
        source: the file.
        what: the kind of record, such as "annotation".
        first, second: places of the two in the file, from 0.
        field: name of the key.
        key: its value.
    """
    return ValueError(
        f"{source}, {what} number {first} and {what} number {second} have the same {field} {key!r}; "
        f"expected every {field} once"
    )


def by_key(
    items: Iterable[Item], key: Callable[[Item], Hashable], source: object, what: str, field: str = "id"
) -> dict[Hashable, Item]:
    """Items by their key, in their order. 1 and "1" are the same key, because samples are named by the text.

    Raises:
        ValueError: two items have one key; see `same_key`.
    """
    by_value: dict[Hashable, Item] = {}
    places: dict[str, int] = {}
    for place, item in enumerate(items):
        value = key(item)
        if (first := places.setdefault(str(value), place)) != place:
            raise same_key(source, what, first, place, field, value)
        by_value[value] = item
    return by_value
