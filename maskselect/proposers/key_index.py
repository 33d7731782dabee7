"""Where the row of a key stands, for millions of rows: two sorted arrays of eight bytes a row.

They are built by reading the `key` column of every shard, which takes about a millisecond a shard, and may be kept in a
file beside the shards, which is mapped into memory and read only where it is searched. The file counts only as long as
the shards are those it was made of.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskselect.backends.arrow import pa
from maskselect.proposers.proposal_rows import read_keys

INDEX = "index.arrow"
_SHARDS = b"shards"
_ROW_BITS = 32  # of a place: the row within its shard; the shard's number stands above


class KeyIndex:
    """Finds rows by key.

    files: the shards, in the order of their numbers.  hashes, places: (R,) uint64 each, by rising hash.
    """

    def __init__(self, files: Sequence[Path], hashes: np.ndarray, places: np.ndarray) -> None:
        self.files, self._hashes, self._places = list(files), hashes, places

    def __len__(self) -> int:
        return len(self._hashes)

    @classmethod
    def build(cls, files: Sequence[Path]) -> "KeyIndex":
        """From the shards themselves.

        Raises ValueError for a damaged shard, and for a key that stands in two rows.
        """
        hashes, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for number, file in enumerate(files):
            keys = read_keys(file)
            hashes.append(np.array([_hash(key) for key in keys], np.uint64))
            places.append(np.arange(len(keys), dtype=np.uint64) + np.uint64(number << _ROW_BITS))
        whole, place = np.concatenate(hashes), np.concatenate(places)
        order = np.argsort(whole, kind="stable")
        made = cls(files, whole[order], place[order])
        made._refuse_twins()
        return made

    @classmethod
    def open(cls, files: Sequence[Path]) -> "KeyIndex":
        """From the file beside the shards where it is there and belongs to them, else as `build`."""
        file = files[0].parent / INDEX if files else None
        if file is None or not file.is_file():
            return cls.build(files)
        try:
            table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
            if (table.schema.metadata or {}).get(_SHARDS) != _told(files):
                return cls.build(files)
            hashes, places = (_mapped(table.column(name).chunk(0)) for name in ("hash", "place"))
        except (pa.ArrowException, OSError, KeyError, IndexError):
            return cls.build(files)
        return cls(files, hashes, places)

    def write(self, path: Path) -> None:
        """The file that `open` reads."""
        schema = pa.schema([("hash", pa.uint64()), ("place", pa.uint64())], {_SHARDS: _told(self.files)})
        table = pa.table([self._hashes, self._places], schema)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_table(table.combine_chunks())

    def find(self, key: str) -> tuple[Path, int] | None:
        """The shard and the number of the row within it, or None where no row has that key."""
        wanted = np.uint64(_hash(key))
        at = int(np.searchsorted(self._hashes, wanted))
        if at == len(self._hashes) or self._hashes[at] != wanted:
            return None
        place = int(self._places[at])
        return self.files[place >> _ROW_BITS], place & ((1 << _ROW_BITS) - 1)

    def _refuse_twins(self) -> None:
        twins = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        if len(twins):
            first, second = (int(self._places[twins[0] + step]) for step in (0, 1))
            files = [self.files[place >> _ROW_BITS] for place in (first, second)]
            key = read_keys(files[0])[first & ((1 << _ROW_BITS) - 1)]
            raise ValueError(f"{files[0]} and {files[1].name} both have a row of key {key!r}; expected one an image")


def _hash(key: str) -> int:
    """The same in every process, other than hash()."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _mapped(column: "pa.UInt64Array") -> np.ndarray:
    """Where it stands in the mapped file. Arrow's own to_numpy would import pandas, which takes seconds."""
    return np.frombuffer(column.buffers()[1], np.uint64, len(column), 8 * column.offset)


def _told(files: Sequence[Path]) -> bytes:
    """What the shards are: names and sizes."""
    return json.dumps([[file.name, file.stat().st_size] for file in files]).encode()
