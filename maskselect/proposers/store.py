"""The store of proposals: parquet files that `maskselect propose` fills, and that every other command reads and fills.

A row is found by two things: its proposer's `cache_key()` and its picture's `content_key`. File names, data sets and
commands do not matter. Candidates are those of the working image, which is what systems read; a row has them at the
picture's own size.

A folder holds `proposals-*.parquet`, shards of many rows that `propose` writes; `index.npy`, where in them each row is;
and `single/`, files of one row each, for pictures that were proposed when another command needed them.
"""

import hashlib
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from maskselect.backends.arrow import pq
from maskselect.backends.cache_keys import cache_key
from maskselect.ops.atomic import atomic_file
from maskselect.ops.images import WORKING_SIDE, working_image
from maskselect.ops.masks import resize_nearest
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
from maskselect.structures.protocols import Cacheable, PromptableProposer, Proposer

INDEX = "index.npy"
SINGLE = "single"

_MOST_OPEN = 32  # shards whose footers stay in memory
_ROW_BITS = 32  # of a place: the row within its shard; the shard's number is in the bits above


def content_key(image: np.ndarray) -> str:
    """24 hex digits of the working image of (H, W, 3) uint8: its shape and pixels."""
    working = working_image(image)
    digest = hashlib.sha256(repr(working.shape).encode())
    digest.update(working.data)
    return digest.hexdigest()[:24]


def proposer_key(proposer: Proposer) -> str:
    """The key under which a proposer's candidates are stored. Raises TypeError for one without a `cache_key`."""
    if not isinstance(proposer, Cacheable):
        raise TypeError(f"{type(proposer).__name__} has no cache_key(), so its candidates cannot be stored")
    return proposer.cache_key()


def propose_row(image: np.ndarray, proposer: Proposer, own_key: str, name: str = "") -> Row:
    """Propose for a picture, (H, W, 3) uint8, and give the row to store.

    own_key: what `proposer_key` gives.  name: the picture's in its data set; its content key if there is none.
    """
    found, content = proposer.propose(working_image(image)), content_key(image)
    found = replace(found, masks=resize_nearest(found.masks, (image.shape[0], image.shape[1])))
    return to_row(name or content, content, found, own_key)


def _hash(*words: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest(), "little")


def build_index(files: Sequence[Path]) -> np.ndarray:
    """Where each row of some shards is: (2, 1 + R) uint64, hashes of keys over places, by rising hash.

    The first entry names the shards. It takes about a millisecond a shard. Raises ValueError for a damaged one.
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
    """Write the index of a folder's shards beside them; remove it if there are none."""
    if files := shards_of(folder):
        with atomic_file(folder / INDEX) as part, part.open("wb") as file:
            np.save(file, build_index(files))
    else:
        (folder / INDEX).unlink(missing_ok=True)


def _shards_hash(files: Sequence[Path]) -> int:
    return _hash(*(f"{file.name} {file.stat().st_size}" for file in files))


def _read_index(folder: Path, files: Sequence[Path]) -> np.ndarray:
    """The index beside the shards, mapped into memory; built if it is absent, damaged or of other shards."""
    with suppress(OSError, ValueError, EOFError, IndexError):
        table: np.ndarray = np.load(folder / INDEX, mmap_mode="r")
        if int(table[0, 0]) == _shards_hash(files):
            return table
    return build_index(files)


class ProposalStore:
    """Reads rows by the keys of proposer and picture, and adds single ones.

    folder: where the files are; made when something is added.

    Only the index is held in memory. Shards that are written after the first `find` are not seen. Threads may share a
    store; a copy in another process opens the files anew.
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
        """Stored candidates at the size that they were stored at; None if there are none.

        Raises ValueError when a shard is damaged. A damaged single file counts as absent.
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
        """Write a single row; the file appears whole or not at all."""
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
        hashes, wanted = self._index[0, 1:], np.uint64(_hash(proposer, content))
        at = int(np.searchsorted(hashes, wanted))
        if at == len(hashes) or hashes[at] != wanted:
            return None
        place = int(self._index[1, 1 + at])
        path = self._shards[place >> _ROW_BITS]
        if path not in self._opened:
            if len(self._opened) == _MOST_OPEN:
                self._opened.clear()
            self._opened[path] = open_rows(path)
        row = read_row(self._opened[path], path, place & ((1 << _ROW_BITS) - 1))
        return row if (row["proposer"], row["content"]) == (proposer, content) else None


class StoredProposer:
    """A `PromptableProposer` that reads candidates from a folder, and proposes and stores those that are not there.

    Args:
        proposer: proposes what is not stored, and answers boxes and points.
        folder: of the store; several proposers may share it.

    Candidates are those of the working image, scaled to the size of the image that is given.
    Warns when the folder holds shards of another proposer. Raises TypeError for a proposer without a `cache_key`.
    """

    def __init__(self, proposer: Proposer, folder: str | Path) -> None:
        self.proposer: Proposer = proposer.proposer if isinstance(proposer, StoredProposer) else proposer
        self.store, self._key = ProposalStore(folder), proposer_key(self.proposer)
        makers = {one for path in shards_of(self.store.folder)[:1] for (one,) in read_columns(path, "proposer")}
        if makers and self._key not in makers:
            warnings.warn(
                f"{folder} holds proposals of the proposer {makers.pop()}, not of this one, {self._key}; they will be "
                "made anew",
                stacklevel=2,
            )

    def cache_key(self) -> str:
        """Of the inner proposer and the side of the working image, which decides what it sees of a large picture."""
        return cache_key("StoredProposer", proposer=self._key, side=WORKING_SIDE)

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to candidates at the image's own size. Raises ValueError for a damaged shard."""
        found = self.store.find(self._key, content_key(image))
        if found is None:
            row = propose_row(image, self.proposer, self._key)
            self.store.add(row)
            found = from_row(row)
        return replace(found, masks=resize_nearest(found.masks, (image.shape[0], image.shape[1])))

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask inside a box given in pixels: (H, W) bool. Raises ValueError if the proposer takes no boxes."""
        return self._promptable().segment_box(image, box_xyxy)

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks inside boxes (K, 4) given in pixels. Raises ValueError if the proposer takes no boxes."""
        return self._promptable().segment_boxes(image, boxes_xyxy)

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask under a point given in pixels: (H, W) bool. Raises ValueError if the proposer takes no points."""
        return self._promptable().segment_point(image, point_xy)

    def _promptable(self) -> PromptableProposer:
        if not isinstance(self.proposer, PromptableProposer):
            raise ValueError("this model's proposer cannot turn a box or point into a mask; give a mask instead")
        return self.proposer
