"""Writes MaskGroups-HQ's format, which `maskselect.data.maskgroups` describes and reads."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from maskselect.backends.arrow import pa, pq
from maskselect.data.maskgroups import REFERENCE_COLUMN
from maskselect.ops.atomic import atomic_file
from maskselect.ops.rle import Rle
from maskselect.structures.sample import MASK_REF

FileFormat = Literal["parquet", "jsonl", "json"]
_ROWS_PER_GROUP = 256  # what is held in memory while writing, and read at a time for candidates


@dataclass(frozen=True)
class MaskGroupRow:
    """One question as it is stored.

    image: file name within the image folder.
    query: the prompt, with `<mask-ref>` for each of `references`.
    gt_mask_pool, references, mask_pool: COCO RLE whose counts are str.
    targets: indices into gt_mask_pool.
    image_size: (H, W).

    Raises ValueError at construction when references and placeholders, or targets and pool, do not fit together.
    """

    sample_id: str
    image: str
    query: str
    gt_mask_pool: list[Rle]
    targets: tuple[int, ...]
    image_size: tuple[int, int]
    references: list[Rle] = field(default_factory=list)
    mask_pool: list[Rle] = field(default_factory=list)
    kind: str = ""

    def __post_init__(self) -> None:
        if self.query.count(MASK_REF) != len(self.references):
            raise ValueError(
                f"sample {self.sample_id}: {self.query.count(MASK_REF)} {MASK_REF} in the query but "
                f"{len(self.references)} reference masks"
            )
        if any(not 0 <= index < len(self.gt_mask_pool) for index in self.targets):
            raise ValueError(
                f"sample {self.sample_id}: targets {self.targets} do not fit {len(self.gt_mask_pool)} masks"
            )


def write_maskgroups(
    root: Path,
    split: str,
    rows: Iterable[MaskGroupRow],
    reference_column: str = REFERENCE_COLUMN,
    form: FileFormat = "parquet",
) -> Path:
    """Writes `root/{split}.{form}`, whole or not at all, and gives its path. Images are the caller's business.

    `rows` may be a generator: parquet and JSON lines are written as it goes.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{split}.{form}"
    records = (_record(row, reference_column) for row in rows)
    with atomic_file(path) as part:
        if form == "parquet":
            _write_parquet(part, records, reference_column)
        elif form == "jsonl":
            with part.open("w") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
        else:
            part.write_text(json.dumps(list(records)))
    return path


def _record(row: MaskGroupRow, reference_column: str) -> dict[str, Any]:
    return {
        "id": row.sample_id,
        "image": row.image,
        "conversations": [{"from": "human", "value": f"<image>\n<mask_pool>\n{row.query}"}],
        "mask_pool": row.mask_pool,
        "gt_mask_pool": row.gt_mask_pool,
        "gt_mask_group": [list(row.targets)],
        reference_column: row.references,
        "kind": row.kind,
        "image_size": list(row.image_size),
    }


def _write_parquet(path: Path, records: Iterator[dict[str, Any]], reference_column: str) -> None:
    rle = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.string()),
            ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
            ("mask_pool", pa.list_(rle)),
            ("gt_mask_pool", pa.list_(rle)),
            ("gt_mask_group", pa.list_(pa.list_(pa.int32()))),
            (reference_column, pa.list_(rle)),
            ("kind", pa.string()),
            ("image_size", pa.list_(pa.int32())),
        ]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(records, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))
