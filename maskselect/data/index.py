"""Records of large annotation files, read from an index beside the file instead of from memory.

The first opening streams the file (ijson) into an SQLite file. Afterwards a record is one look-up, and processes share
the pages of one file instead of a copy each.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskselect.backends.cache import places_beside
from maskselect.backends.optional import lazy
from maskselect.backends.progress import reading
from maskselect.data.files import refuse_missing
from maskselect.data.json_text import not_json, open_json
from maskselect.data.values import Key, key_of, same_key
from maskselect.ops.atomic import atomic_file

ijson = lazy("ijson", "data")

_VERSION = 3
Record = dict[str, Any]
__all__ = ["Index", "Key", "Record", "Section", "open_index"]


@dataclass(frozen=True)
class Section:
    """One list of records in a file.

    Attributes:
        path: key of the list, such as "annotations"; "" if the file is the list itself.
        key: field that identifies a record and must be unique; None numbers the records from 0.
        group: field by which records are grouped, such as an annotation's image, or None.
        in_group: keys are unique only within their group.
        values: the section is an object instead of a list; its values are the records, named by its keys.
        wrapped: as `values`, for values that are no objects: a record is {key: its key, "value": the value}.
        partial: records without a key are left out instead of refused.
        nameless: records without a key are kept, and found only through their group.
    """

    path: str
    key: str | None = "id"
    group: str | None = None
    values: bool = False
    wrapped: bool = False
    partial: bool = False
    nameless: bool = False
    in_group: bool = False


class Index:
    """Look-ups in an index that `open_index` made. Cheap to pickle: a worker process opens the file again.

    Args:
        file: the index.
        source: the annotation file, for messages.
    """

    def __init__(self, file: Path, source: Path) -> None:
        self.file, self.source = file, source
        self._opened: tuple[int, sqlite3.Connection] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "source": self.source, "_opened": None}

    def count(self, section: str) -> int:
        """Number of records in a section."""
        return int(self._one("SELECT count(*) FROM records WHERE section = ?", section)[0])

    def keys(self, section: str) -> list[Key]:
        """Keys of a section, in the file's order."""
        rows = self._rows("SELECT key FROM records WHERE section = ? ORDER BY place", section)
        return [row[0] for row in rows]

    def groups(self, section: str) -> list[Key]:
        """Distinct groups of a section, in the order of their first record."""
        query = "SELECT grp FROM records WHERE section = ? AND grp IS NOT NULL GROUP BY grp ORDER BY min(place)"
        return [row[0] for row in self._rows(query, section)]

    def get(self, section: str, key: Key) -> Record:
        """One record.

        Raises:
            ValueError: there is none; the message names the file.
        """
        row = self._one("SELECT record FROM records WHERE section = ? AND key = ?", section, key_of(key))
        if row is None:
            raise ValueError(f"{self.source} has no {section} with the id {key!r}")
        return json.loads(row[0])

    def has(self, section: str, key: Key) -> bool:
        """Whether a section has a record with this key."""
        return self._one("SELECT 1 FROM records WHERE section = ? AND key = ?", section, key_of(key)) is not None

    def of_group(self, section: str, group: Key) -> list[Record]:
        """The records of a group, in the file's order; empty for an unknown group."""
        query = "SELECT record FROM records WHERE section = ? AND grp = ? ORDER BY place"
        return [json.loads(row[0]) for row in self._rows(query, section, key_of(group))]

    def all(self, section: str) -> Iterator[Record]:
        """Every record of a section, in the file's order, one at a time."""
        query = "SELECT record FROM records WHERE section = ? ORDER BY place"
        for row in self._connection().execute(query, (section,)):
            yield json.loads(row[0])

    def _connection(self) -> sqlite3.Connection:
        # A connection must not travel into a forked process.
        if self._opened is None or self._opened[0] != os.getpid():
            uri = f"{self.file.absolute().as_uri()}?mode=ro&immutable=1"
            self._opened = os.getpid(), sqlite3.connect(uri, uri=True, check_same_thread=False)
        return self._opened[1]

    def _rows(self, query: str, *values: Key) -> list[Any]:
        return self._connection().execute(query, values).fetchall()

    def _one(self, query: str, *values: Key) -> Any:
        return self._connection().execute(query, values).fetchone()


def open_index(
    source: Path,
    sections: Mapping[str, Section],
    parse: Callable[[Path], Mapping[str, Iterable[Record]]] | None = None,
) -> Index:
    """The index of an annotation file, built if it is missing or the file has changed.

    It is `NAME.index` beside the file, or in the user's cache if the folder is read-only, or in the folder of the
    environment variable MASKSELECT_INDEX.

    Args:
        source: the annotation file.
        sections: by name.
        parse: for files that are not JSON: returns the records of each section, which are then in memory at once.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is damaged, or a record does not fit its section.
    """
    refuse_missing(source)
    state = source.stat()
    stamp = json.dumps([_VERSION, state.st_size, state.st_mtime_ns, repr(sorted(sections.items()))])
    for place in _places(source):
        if _is_current(place, stamp):
            return Index(place, source)
    for place in _places(source):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place, durable=True) as part:
                _build(part, source, sections, stamp, parse)
            return Index(place, source)
        except (OSError, sqlite3.OperationalError) as error:
            refused = error
    raise ValueError(f"the index of {source} could not be written beside it or into the cache: {refused}")


def _places(source: Path) -> list[Path]:
    digest = hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:16]
    return places_beside(source, ".index", digest)


def _is_current(place: Path, stamp: str) -> bool:
    if not place.is_file():
        return False
    try:
        connection = sqlite3.connect(f"{place.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            row = connection.execute("SELECT stamp FROM meta").fetchone()
            with place.open("rb") as file:
                pages = int.from_bytes(file.read(32)[28:], "big")
            complete = pages * int(connection.execute("PRAGMA page_size").fetchone()[0]) == place.stat().st_size
            return bool(row == (stamp,)) and complete
        finally:
            connection.close()
    except (sqlite3.DatabaseError, OSError):
        return False


def _build(
    part: Path,
    source: Path,
    sections: Mapping[str, Section],
    stamp: str,
    parse: Callable[[Path], Mapping[str, Iterable[Record]]] | None,
) -> None:
    parsed = None if parse is None else parse(source)
    connection = sqlite3.connect(part)
    try:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE records (section TEXT, place INTEGER, key, grp, record TEXT)")
        for name, section in sections.items():
            records = _streamed(source, section) if parsed is None else parsed.get(name, ())
            _fill(connection, name, section, records, source)
        for name, section in sections.items():
            _refuse_same_keys(connection, name, section, source)
        connection.execute("CREATE INDEX by_key ON records (section, key)")
        connection.execute("CREATE INDEX by_group ON records (section, grp, place)")
        connection.execute("CREATE INDEX by_place ON records (section, place)")
        connection.execute("CREATE TABLE meta (stamp TEXT)")
        connection.execute("INSERT INTO meta VALUES (?)", (stamp,))
        connection.commit()
    finally:
        connection.close()


def _fill(connection: sqlite3.Connection, name: str, section: Section, records: Iterable[Record], source: Path) -> None:
    rows = []
    for place, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{source}, {name} number {place} is {str(record)[:40]!r}; expected an object")
        if section.partial and section.key not in record:
            continue
        try:
            key = place if section.key is None else _key(record, section)
            group = None if section.group is None else key_of(record[section.group])
        except KeyError as error:
            raise ValueError(f"{source}, {name} number {place} has no field {error}") from error
        except ValueError as error:
            raise ValueError(f"{source}, {name} number {place}: {error}") from error
        try:
            rows.append((name, place, key, group, json.dumps(record, separators=(",", ":"))))
        except (TypeError, ValueError) as error:  # a pickle may hold bytes, or itself
            raise ValueError(f"{source}, {name} number {place} is not made of texts and numbers: {error}") from error
        if len(rows) >= 2000:
            connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
            rows.clear()
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)


def _key(record: Record, section: Section) -> Key | None:
    if section.nameless and record.get(section.key or "") is None:
        return None
    return key_of(record[section.key or ""])


def _refuse_same_keys(connection: sqlite3.Connection, name: str, section: Section, source: Path) -> None:
    if section.key is None:
        return
    within = ", grp" if section.in_group else ""
    query = (
        "SELECT key, min(place), max(place) FROM records WHERE section = ? AND key IS NOT NULL "
        f"GROUP BY key{within} HAVING count(*) > 1 ORDER BY min(place) LIMIT 1"
    )
    if row := connection.execute(query, (name,)).fetchone():
        key, first, second = row
        raise same_key(source, name, first, second, section.key or "id", key)


def _streamed(source: Path, section: Section) -> Iterator[Record]:
    """The records of one section, without the file in memory."""
    path = f"{section.path}.item" if section.path else "item"
    with open_json(source) as file, reading(file, source.stat().st_size, f"Indexing {source.name}") as counted:
        try:
            if not (section.values or section.wrapped):
                yield from ijson.items(counted, path, use_float=True)
                return
            for name, record in ijson.kvitems(counted, section.path, use_float=True):
                if section.wrapped:
                    yield {section.key or "id": name, "value": record}
                else:
                    yield {section.key or "id": name, **record} if isinstance(record, dict) else record
        except (ijson.JSONError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise not_json(source, error) from error
