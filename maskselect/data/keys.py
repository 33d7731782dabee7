"""Keys that name one thing each: ids of images, annotations, categories and prompts.

A dictionary keeps the last of two records with one key and says nothing, so whoever looks records up by a key of a file
checks first that it is there once.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def same_key(source: object, what: str, first: int, second: int, field: str, key: object) -> ValueError:
    """The error for two records of one key.

    Args:
        source: the file.
        what: the kind of record, such as "annotation".
        first, second: places of the two in the file, from 0.
        field: name of the key.
    """
    return ValueError(
        f"{source}, {what} number {first} and {what} number {second} have the same {field} {key!r}; "
        f"expected every {field} once"
    )


def by_key(
    items: Iterable[Item], key: Callable[[Item], Hashable], source: object, what: str, field: str = "id"
) -> dict[Hashable, Item]:
    """Items by their key, in their order.

    Keys are compared as text, since samples are named by the text: 1 and "1" are one key.

    Raises:
        ValueError: two items have one key; the message names source, key, and the places of both.
    """
    found: dict[Hashable, Item] = {}
    places: dict[str, int] = {}
    for place, item in enumerate(items):
        own = key(item)
        if (first := places.setdefault(str(own), place)) != place:
            raise same_key(source, what, first, place, field, own)
        found[own] = item
    return found
