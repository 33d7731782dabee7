"""`PrecomputedProposer`: candidates that were made before, in the shards that `propose` writes or in single files.

Shards are parquet with one row an image, see `proposal_rows`. Single files are JSON, one an image: a file holds
`image_id`, `size` [h, w], `proposer` (a hash over the proposer's configuration and weights, so that candidates of two
proposers never mix), `source`, and `masks`: records of `segmentation` (compressed COCO RLE), `score`, and whatever
further numbers the proposer gave.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import torch

from maskselect.backends.arrow import pq
from maskselect.backends.atomic import write_text
from maskselect.backends.cache import expanded
from maskselect.backends.checkpoints import find_checkpoint
from maskselect.ops import rle
from maskselect.proposers.key_index import KeyIndex
from maskselect.proposers.proposal_note import read_note
from maskselect.proposers.proposal_rows import Row, from_row, open_shard, read_row, shards_of
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need
from maskselect.structures.provenance import Provenance

_KEPT_OPEN = 32  # shards whose footers stay in memory


def proposer_hash(
    config: dict[str, Any], checkpoint: str | Path | None = None, others: Sequence[str | Path] = ()
) -> str:
    """Twelve hex digits that name a proposer: its configuration, any JSON, and the bytes of its weights.

    checkpoint: a file, or a shipped name as in `find_checkpoint`.
    others: further ones, and folders, as of proposers within this one.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for one in (checkpoint, *others):
        for file in [] if one is None else _files(expanded(one)):
            with file.open("rb") as content:
                hashlib.file_digest(content, lambda: digest)  # in pieces: weights may be larger than memory
    return digest.hexdigest()[:12]


def _files(path: Path) -> list[Path]:
    """A checkpoint's file, or everything in a folder of weights."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path if path.is_file() else find_checkpoint(path)]


class PrecomputedProposer:
    """Reads candidates by the key of their image, and writes those of single images.

    folder: where the files are; made when something is written.
    proposer: hash that the candidates must carry (see `proposer_hash`); "" accepts any and writes "unknown".

    Shards are looked into first. Nothing but the places of the keys stays in memory; a copy of this object in another
    process opens the files anew. Shards that are added while it is in use are found.
    """

    def __init__(self, folder: str | Path, proposer: str = "") -> None:
        self.folder = Path(folder)
        self.proposer = proposer
        self._lock = threading.RLock()  # threads share index and open files
        self._index: KeyIndex | None = None
        self._opened: OrderedDict[Path, pq.ParquetFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"} | {"_opened": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    @property
    def trained_on(self) -> tuple[Provenance, ...]:
        """What the weights of those who made the shards learned from, as far as it is told beside them.

        Raises ValueError when that file is damaged.
        """
        return read_note(self.folder)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The folder of candidates."""
        folder = Path(arguments["folder"])
        command = f"maskselect propose --images DIR --output {folder}"
        return [] if folder.is_dir() else [Need("data", f"{folder}, candidates made before", command)]

    def path_of(self, image_id: str) -> Path:
        """The JSON file of an image. Characters that a file name cannot have are escaped as in a URL."""
        return self.folder / f"{quote(image_id, safe=' ')}.json"

    def has(self, image_id: str) -> bool:
        """Whether candidates of that image exist. They are not read."""
        with self._lock:
            return self._find(image_id) is not None or self.path_of(image_id).is_file()

    def propose(self, image: np.ndarray, image_id: str) -> MaskSet:
        """Stored candidates of (H, W, 3) uint8 `image`, checked against its id and size.

        Raises FileNotFoundError when there are none, ValueError when they are damaged, of another image, size or
        proposer.
        """
        with self._lock:
            where, found_id, size, proposer, made = self._stored(image_id)
        if found_id != image_id:
            raise ValueError(f"candidates {where} belong to image {found_id!r}; expected {image_id!r}")
        if size != image.shape[:2]:
            raise ValueError(
                f"candidates {where} are for an image of {list(size)} (h, w); image {image_id!r} has "
                f"{list(image.shape[:2])}"
            )
        if self.proposer and proposer != self.proposer:
            raise ValueError(f"candidates {where} are by proposer {proposer!r}; expected {self.proposer!r}")
        return made()

    def _stored(self, image_id: str) -> "_Stored":
        place = self._find(image_id)
        if place is not None:
            path, number = place
            row = read_row(self._open(path), path, number)
            where = f"of row {number} of {path}"
            return _Stored(
                where, row["key"], (row["height"], row["width"]), row["proposer"], lambda: _from_row(row, where)
            )
        path = self.path_of(image_id)
        if not path.is_file():
            told = f"{path} is missing"
            if self._index is not None and self._index.files:
                told = f"none of the {len(self._index)} images in {self.folder} has that key"
            raise FileNotFoundError(f"no precomputed candidates for image {image_id!r}: {told}")
        record = _read(path)
        size: tuple[int, int] = tuple(record["size"])
        return _Stored(
            str(path), record["image_id"], size, record["proposer"], lambda: _from_record(record, size, path)
        )

    def _find(self, image_id: str) -> tuple[Path, int] | None:
        """Shard and row of an image. Where none has it, it is looked whether shards were added."""
        found = None if self._index is None else self._index.find(image_id)
        if found is None:
            files = shards_of(self.folder)
            if self._index is None or files != self._index.files:
                self._index = KeyIndex.open(files)
                found = self._index.find(image_id)
        return found

    def _open(self, path: Path) -> "pq.ParquetFile":
        if path not in self._opened:
            self._opened[path] = open_shard(path)
            if len(self._opened) > _KEPT_OPEN:
                self._opened.popitem(last=False)[1].close()
        self._opened.move_to_end(path)
        return self._opened[path]

    def write(self, image_id: str, candidates: MaskSet) -> Path:
        """Store candidates as JSON; the file appears whole or not at all. Columns of one number a mask are kept."""
        columns = {name: c.tolist() for name, c in candidates.columns.items() if c.ndim == 1}
        codes, scores = rle.encode(candidates.masks.cpu().numpy()), candidates.scores.tolist()
        masks = [
            {"segmentation": code, "score": score, **{name: values[k] for name, values in columns.items()}}
            for k, (code, score) in enumerate(zip(codes, scores, strict=True))
        ]
        record = {
            "image_id": image_id,
            "size": list(candidates.image_size),
            "proposer": self.proposer or "unknown",
            "source": candidates.source,
            "masks": masks,
        }
        path = self.path_of(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record))
        return path


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"candidates {path} are not valid JSON: {error}") from error
    missing = {"image_id", "size", "proposer", "masks"} - (record.keys() if isinstance(record, dict) else set())
    if missing:
        raise ValueError(f"candidates {path} lack {sorted(missing)}; were they written by PrecomputedProposer?")
    size = record["size"]
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise ValueError(f"candidates {path} have size {str(size)[:40]}; expected [h, w]")
    return record


class _Stored(NamedTuple):
    """Candidates that were found, and what must fit before they are decoded.

    where: for messages.  size: (h, w).
    """

    where: str
    image_id: str
    size: tuple[int, int]
    proposer: str
    made: Callable[[], MaskSet]


def _from_row(row: Row, where: str) -> MaskSet:
    try:
        return from_row(row)
    except ValueError as error:
        raise ValueError(f"candidates {where} hold {error}") from error


def _from_record(record: dict[str, Any], size: tuple[int, int], path: Path) -> MaskSet:
    rows = record["masks"]
    try:
        masks = rle.decode_many([row["segmentation"] for row in rows], size)
        names = set.intersection(*({*row} for row in rows)) - {"segmentation", "score"} if rows else set()
        columns = {
            name: torch.tensor([float(row[name]) for row in rows], dtype=torch.float32) for name in sorted(names)
        }
        scores = torch.tensor([float(row["score"]) for row in rows], dtype=torch.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"candidates {path} hold a damaged mask: {error!r}") from error
    return MaskSet(torch.from_numpy(masks), scores, record.get("source", "precomputed"), columns)
