"""The store of proposals: parquet files that `maskselect propose` writes, and every other command reads and extends.

The key of a row is the proposer's `cache_key()` with the image's `content_key`; file names, data sets and commands do
not matter. Proposers run on the working image, which systems read; a row holds masks at the size of the image itself.

A folder holds `proposals-*.parquet`, the shards that `propose` writes; `index.npy`, the place of each row in them; and
`single/`, files of one row each, which other commands add.
"""

import hashlib
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from maskselect.backends.arrow import pq
from maskselect.backends.cache_keys import cache_key
from maskselect.ops.atomic import atomic_file
from maskselect.ops.images import WORKING_SIDE, working_image
from maskselect.ops.masks import resize_nearest
from maskselect.proposers.forwarding import PromptForwarding
from maskselect.proposers.proposal_rows import (
    ProposalRows,
    Row,
    from_row,
    open_rows,
    read_columns,
    read_row,
    shards_of,
    to_row,
)
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Cacheable, Proposer

INDEX = "index.npy"
SINGLE = "single"

_MOST_OPEN = 32  # shards whose footers stay in memory
_ROW_BITS = 32  # low bits of a place: the row in its shard; the high bits are the number of the shard


def content_key(image: np.ndarray) -> str:
    """24 hex digits: a digest of the working image of (H, W, 3) uint8, its shape and pixels."""
    working = working_image(image)
    digest = hashlib.sha256(repr(working.shape).encode())
    digest.update(working.data)
    return digest.hexdigest()[:24]


def proposer_key(proposer: Proposer) -> str:
    """The `cache_key` of a proposer. Raises TypeError if it has none."""
    if not isinstance(proposer, Cacheable):
        raise TypeError(f"{type(proposer).__name__} has no cache_key(), so its candidates cannot be stored")
    return proposer.cache_key()


def propose_row(image: np.ndarray, proposer: Proposer, key: str, name: str = "") -> Row:
    """Propose for an image and return the row to store.

    Args:
        image: (H, W, 3) uint8.
        proposer: runs on the working image.
        key: the proposer's `proposer_key`.
        name: name of the image in its data set; the default is its content key.
    """
    content = content_key(image)
    return to_row(name or content, content, _resized(proposer.propose(working_image(image)), image), key)


def _resized(candidates: MaskSet, image: np.ndarray) -> MaskSet:
    return replace(candidates, masks=resize_nearest(candidates.masks, (image.shape[0], image.shape[1])))


def _hash(*words: str) -> int:
    """A 64-bit hash that is the same in every process."""
    return int.from_bytes(hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest(), "little")


def build_index(files: Sequence[Path]) -> np.ndarray:
    """Index of the R rows of shards: (2, 1 + R) uint64, hashes of keys over places, by rising hash.

    The first entry identifies the shards. Building takes about a millisecond per shard. Raises ValueError for a damaged
    shard.
    """
    hashes, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for number, file in enumerate(files):
        rows = read_columns(file, "proposer", "content")
        hashes.append(np.array([_hash(*row) for row in rows], np.uint64))
        places.append(np.arange(len(rows), dtype=np.uint64) + np.uint64(number << _ROW_BITS))
    table = np.stack([np.concatenate(hashes), np.concatenate(places)])
    first = np.array([[_shards_hash(files)], [0]], np.uint64)
    return np.concatenate([first, table[:, np.argsort(table[0], kind="stable")]], 1)


def write_index(folder: Path) -> None:
    """Write the index of the shards in a folder; remove it if there are no shards."""
    if files := shards_of(folder):
        with atomic_file(folder / INDEX) as part, part.open("wb") as file:
            np.save(file, build_index(files))
    else:
        (folder / INDEX).unlink(missing_ok=True)


def _shards_hash(files: Sequence[Path]) -> int:
    return _hash(*(f"{file.name} {file.stat().st_size}" for file in files))


def _read_index(folder: Path, files: Sequence[Path]) -> np.ndarray:
    """The stored index, mapped into memory; a new one if it is absent, damaged or of other shards."""
    with suppress(OSError, ValueError, EOFError, IndexError):
        table: np.ndarray = np.load(folder / INDEX, mmap_mode="r")
        if int(table[0, 0]) == _shards_hash(files):
            return table
    return build_index(files)


class ProposalStore:
    """Finds rows by the keys of proposer and image, and adds single rows.

    Args:
        folder: created when a row is added.

    Only the index is held in memory. Shards that are written after the first `find` are ignored. Threads may share a
    store; a copy in another process opens the files again.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._shards: list[Path] | None = None
        self._index = np.zeros((2, 0), np.uint64)
        self._opened: dict[Path, pq.ParquetFile] = {}

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        self.folder = folder
        self._begin()

    def find(self, proposer: str, content: str) -> MaskSet | None:
        """Stored candidates at the stored size; None if there are none.

        A damaged single file counts as absent. Raises ValueError for a damaged shard.
        """
        with self._lock:
            row = self._in_shards(proposer, content)
        if row is not None:
            return from_row(row)
        path = self._single(proposer, content)
        with suppress(ValueError):
            return from_row(read_row(open_rows(path), path, 0)) if path.is_file() else None
        return None

    def add(self, row: Row) -> None:
        """Write a single row atomically."""
        path = self._single(row["proposer"], row["content"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as part:
            ProposalRows().write(part, [row])

    def _single(self, proposer: str, content: str) -> Path:
        return self.folder / SINGLE / f"{proposer}-{content}.{ProposalRows.suffix}"

    def _in_shards(self, proposer: str, content: str) -> Row | None:
        if self._shards is None:
            shards = shards_of(self.folder)
            self._index, self._shards = _read_index(self.folder, shards), shards
        hashes, target = self._index[0, 1:], np.uint64(_hash(proposer, content))
        at = int(np.searchsorted(hashes, target))
        if at == len(hashes) or hashes[at] != target:
            return None
        place = int(self._index[1, 1 + at])
        path = self._shards[place >> _ROW_BITS]
        if path not in self._opened:
            if len(self._opened) == _MOST_OPEN:
                self._opened.clear()
            self._opened[path] = open_rows(path)
        row = read_row(self._opened[path], path, place & ((1 << _ROW_BITS) - 1))
        return row if (row["proposer"], row["content"]) == (proposer, content) else None


class StoredProposer(PromptForwarding):
    """A `PromptableProposer` that reads candidates from a store, and adds those that are missing.

    Candidates are those of the working image, resized to the image. A warning says if the folder holds shards of
    another proposer.

    Args:
        proposer: proposes missing candidates, and answers boxes and points.
        folder: folder of the store; several proposers may share it.

    Raises:
        TypeError: the proposer has no `cache_key`.
    """

    def __init__(self, proposer: Proposer, folder: str | Path) -> None:
        self.proposer: Proposer = proposer.proposer if isinstance(proposer, StoredProposer) else proposer
        self._inner = [self.proposer]
        self.store, self._key = ProposalStore(folder), proposer_key(self.proposer)
        makers = {one for path in shards_of(self.store.folder)[:1] for (one,) in read_columns(path, "proposer")}
        if makers and self._key not in makers:
            warnings.warn(
                f"{folder} holds proposals of the proposer {makers.pop()}, not of this one, {self._key}; the proposer "
                "will run again",
                stacklevel=2,
            )

    def cache_key(self) -> str:
        """The key of the inner proposer and the side of the working image."""
        return cache_key("StoredProposer", proposer=self._key, side=WORKING_SIDE)

    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates at the size of the image, (H, W, 3) uint8. Raises ValueError for a damaged shard."""
        candidates = self.store.find(self._key, content_key(image))
        if candidates is None:
            row = propose_row(image, self.proposer, self._key)
            self.store.add(row)
            candidates = from_row(row)
        return _resized(candidates, image)
