"""The store of proposals: parquet files that `maskselect propose` fills, and that every other command reads and fills.

A row is found by two things: its proposer's `cache_key()` and its picture's `content_key`. File names, data sets and
commands do not matter. Candidates are those of the working image, which is what systems read; a row has them at the
picture's own size.

A folder holds `proposals-*.parquet`, shards of many rows that `propose` writes; `index.npy`, where in them each row is;
and `single/`, files of one row each, for pictures that were proposed when another command needed them.

Columns: `key` (the picture's name in its data set), `content`, `height`, `width`, `source` (who proposed), `proposer`
(its cache key), `masks` (COCO RLE: `size` [h, w] and compressed `counts`), `scores`, `boxes_xyxy` (pixels, exclusive
end; all 0 for a mask without a pixel) and `columns`: each further number that the proposer gave for each mask, as
`name`, `dtype` and `values`. Images that could not be read have no row; they are in the file's metadata under
`failed`, with the reason, so that a shard is one file, whole or absent.
"""

import hashlib
import json
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.arrow import pa, pq
from maskselect.backends.atomic import atomic_file
from maskselect.backends.cache_keys import cache_key
from maskselect.ops import rle
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.images import WORKING_SIDE, working_image
from maskselect.ops.masks import resize_nearest
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Cacheable, PromptableProposer, Proposer

Row = dict[str, Any]
STEM = "proposals"
"""What the names of shards begin with."""

INDEX = "index.npy"
SINGLE = "single"

ROWS_PER_GROUP = 16
"""What is read and decompressed for one image: fewer make files larger and slower to open."""

_FAILED = b"failed"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_FLOATS, *_WHOLE)}
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


@cache
def _schema() -> "pa.Schema":
    """The columns of the parquet files."""
    column = pa.struct([("name", pa.string()), ("dtype", pa.string()), ("values", pa.list_(pa.float64()))])
    return pa.schema(
        [
            ("key", pa.string()),
            ("content", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("source", pa.string()),
            ("proposer", pa.string()),
            ("masks", pa.list_(pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]))),
            ("scores", pa.list_(pa.float32())),
            ("boxes_xyxy", pa.list_(pa.list_(pa.int32()))),
            ("columns", pa.list_(column)),
        ]
    )


def to_row(key: str, content: str, candidates: MaskSet, proposer: str) -> Row:
    """An image's candidates in plain containers. Columns of one number a mask are stored."""
    height, width = candidates.image_size
    masks = candidates.masks.cpu()
    return {
        "key": key,
        "content": content,
        "height": height,
        "width": width,
        "source": candidates.source,
        "proposer": proposer,
        "masks": rle.encode(masks.numpy()),
        "scores": candidates.scores.tolist(),
        "boxes_xyxy": masks_to_boxes_xyxy(masks).int().tolist(),
        "columns": [
            {"name": name, "dtype": str(column.dtype).removeprefix("torch."), "values": column.double().tolist()}
            for name, column in sorted(candidates.columns.items())
            if column.ndim == 1
        ],
    }


def from_row(row: Row) -> MaskSet:
    """The candidates of a row. Raises ValueError when it is damaged."""
    size = (int(row["height"]), int(row["width"]))
    try:
        masks = rle.decode_many(row["masks"], size)
        if masks.shape[1:] != size:
            raise ValueError(f"its masks are of {list(masks.shape[1:])} (h, w), its image of {list(size)}")
        columns = {
            one["name"]: torch.tensor(one["values"], dtype=torch.float64).to(_DTYPES[one["dtype"]])
            for one in row["columns"]
        }
        return MaskSet(
            torch.from_numpy(masks), torch.tensor(row["scores"], dtype=torch.float32), row["source"], columns
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the candidates of image {row['key']!r} are damaged: {error}") from error


def failed_row(key: str, reason: str) -> Row:
    """Instead of a row, for an image that cannot be read."""
    return {"key": key, "failed": reason}


class ProposalRows:
    """How a shard is stored; see the top of the file."""

    suffix = "parquet"

    def write(self, path: Path, records: list[Row]) -> None:
        """One file, of rows by `to_row` and `failed_row`."""
        failed = {record["key"]: record["failed"] for record in records if "failed" in record}
        rows = (record for record in records if "failed" not in record)
        schema = _schema().with_metadata({_FAILED: json.dumps(failed).encode()})
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while group := list(islice(rows, ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema))


def shards_of(folder: Path) -> list[Path]:
    """The shards that lie in a folder, by name; none if there is no folder."""
    return sorted(folder.glob(f"{STEM}-*.{ProposalRows.suffix}"))


def read_keys(path: Path) -> list[str]:
    """The names of a shard's pictures, in the order of its rows. Raises ValueError when the shard is damaged."""
    return [name for (name,) in _read_columns(path, "key")]


def read_failed(path: Path) -> dict[str, str]:
    """The images of a shard that could not be read, each with the reason. Raises ValueError as `read_keys`."""
    metadata = _open(path).schema_arrow.metadata or {}
    failed: dict[str, str] = json.loads(metadata.get(_FAILED, b"{}"))
    return failed


def _open(path: Path) -> "pq.ParquetFile":
    """A file of rows, mapped into memory. Raises ValueError when it is damaged or of another kind."""
    try:
        opened = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is truncated or not parquet: {_one_line(error)}") from error
    if missing := sorted(set(_schema().names) - set(opened.schema_arrow.names)):
        raise ValueError(f"{path} has no column(s) {', '.join(missing)}; expected a shard that `propose` wrote")
    return opened


def _read_columns(path: Path, *names: str) -> list[tuple[str, ...]]:
    """Some columns of text of every row."""
    try:
        table = _open(path).read(list(names), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged: {_one_line(error)}") from error
    if lacking := [name for name in names if table.column(name).null_count]:
        raise ValueError(f"{path} has row(s) without a {lacking[0]}")
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def _read_row(opened: "pq.ParquetFile", path: Path, number: int) -> Row:
    """A row by its number, without the boxes, which follow from the masks. One row group is read."""
    ends = np.cumsum([opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)])
    group = int(np.searchsorted(ends, number, side="right"))
    names = [name for name in _schema().names if name != "boxes_xyxy"]
    try:
        table = opened.read_row_group(group, names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged: {_one_line(error)}") from error
    start = int(ends[group]) - table.num_rows
    found: Row = table.slice(number - start, 1).to_pylist()[0]
    return found


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _hash(*words: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest(), "little")


def build_index(files: Sequence[Path]) -> np.ndarray:
    """Where each row of some shards is: (2, 1 + R) uint64, hashes of keys over places, by rising hash.

    The first entry names the shards. It takes about a millisecond a shard. Raises ValueError for a damaged one.
    """
    hashes, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for number, file in enumerate(files):
        rows = _read_columns(file, "proposer", "content")
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
            return from_row(_read_row(_open(path), path, 0)) if path.is_file() else None
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
            self._opened[path] = _open(path)
        row = _read_row(self._opened[path], path, place & ((1 << _ROW_BITS) - 1))
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
        makers = {one for path in shards_of(self.store.folder)[:1] for (one,) in _read_columns(path, "proposer")}
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
