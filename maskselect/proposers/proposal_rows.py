"""The rows of stored proposals: parquet files with one row per image.

Columns: `key` (name of the image in its data set), `content`, `height`, `width`, `source`, `proposer` (cache key),
`masks` (COCO RLE: `size` [h, w] and compressed `counts`), `scores`, `boxes_xyxy` (pixels, exclusive end; all 0 for an
empty mask) and `columns`: the further columns of the candidates, with one number per mask, as `name`, `dtype` and
`values`. Images that could not be read have no row; the metadata of the file lists them under `failed` with the reason,
so that a shard is one file.
"""

import json
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskselect.backends.arrow import pa, pq
from maskselect.ops import rle
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.structures.masks import MaskSet

Row = dict[str, Any]
STEM = "proposals"
"""Prefix of the file names of shards."""

ROWS_PER_GROUP = 16
"""Rows that are decompressed together. Fewer make files larger and slower to open."""

_FAILED = b"failed"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_FLOATS, *_WHOLE)}


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
    """The candidates of an image in plain containers, with all columns of one number per mask."""
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
    """The candidates of a row. Raises ValueError if the row is damaged."""
    size = (int(row["height"]), int(row["width"]))
    try:
        masks = rle.decode_many(row["masks"], size)
        if masks.shape[1:] != size:
            raise ValueError(f"its masks have the size {list(masks.shape[1:])} (h, w), its image {list(size)}")
        columns = {
            column["name"]: torch.tensor(column["values"], dtype=torch.float64).to(_DTYPES[column["dtype"]])
            for column in row["columns"]
        }
        scores = torch.tensor(row["scores"], dtype=torch.float32)
        return MaskSet(torch.from_numpy(masks), scores, row["source"], columns)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the candidates of image {row['key']!r} are damaged: {error}") from error


def failed_row(key: str, reason: str) -> Row:
    """The record of an image that cannot be read."""
    return {"key": key, "failed": reason}


class ProposalRows:
    """The format of a shard; see the top of the file."""

    suffix = "parquet"

    def write(self, path: Path, records: list[Row]) -> None:
        """Write one file of rows from `to_row` and `failed_row`."""
        failed = {record["key"]: record["failed"] for record in records if "failed" in record}
        rows = (record for record in records if "failed" not in record)
        schema = _schema().with_metadata({_FAILED: json.dumps(failed).encode()})
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while group := list(islice(rows, ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema))


def shards_of(folder: Path) -> list[Path]:
    """The shards in a folder, sorted by name; none if the folder does not exist."""
    return sorted(folder.glob(f"{STEM}-*.{ProposalRows.suffix}"))


def read_keys(path: Path) -> list[str]:
    """The image names of a shard, in the order of its rows. Raises ValueError if the shard is damaged."""
    return [name for (name,) in read_columns(path, "key")]


def read_failed(path: Path) -> dict[str, str]:
    """The images of a shard that could not be read, with the reason. Raises ValueError if the shard is damaged."""
    metadata = open_rows(path).schema_arrow.metadata or {}
    failed: dict[str, str] = json.loads(metadata.get(_FAILED, b"{}"))
    return failed


def open_rows(path: Path) -> "pq.ParquetFile":
    """Open a file of rows, mapped into memory. Raises ValueError if it is damaged or of another format."""
    try:
        opened = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is truncated or not parquet: {_one_line(error)}") from error
    if missing := sorted(set(_schema().names) - set(opened.schema_arrow.names)):
        raise ValueError(f"{path} has no column(s) {', '.join(missing)}; expected a shard that `propose` wrote")
    return opened


def read_columns(path: Path, *names: str) -> list[tuple[str, ...]]:
    """Text columns of all rows, as one tuple per row. Raises ValueError if the file is damaged."""
    try:
        table = open_rows(path).read(list(names), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged: {_one_line(error)}") from error
    if missing := [name for name in names if table.column(name).null_count]:
        raise ValueError(f"{path} has row(s) without a {missing[0]}")
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def read_row(opened: "pq.ParquetFile", path: Path, number: int) -> Row:
    """Read row `number`, without the boxes, which follow from the masks. Reads one row group."""
    ends = np.cumsum([opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)])
    group = int(np.searchsorted(ends, number, side="right"))
    names = [name for name in _schema().names if name != "boxes_xyxy"]
    try:
        table = opened.read_row_group(group, names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged: {_one_line(error)}") from error
    start = int(ends[group]) - table.num_rows
    row: Row = table.slice(number - start, 1).to_pylist()[0]
    return row


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
