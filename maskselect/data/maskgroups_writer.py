"""A writer of MaskGroups-HQ's format as parquet; `maskselect.data.maskgroups` describes and reads it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from maskselect.backends.arrow import pa, pq
from maskselect.data.maskgroups import REFERENCE_COLUMN
from maskselect.ops.atomic import atomic_file
from maskselect.ops.rle import Rle
from maskselect.structures.sample import MASK_REF

_ROWS_PER_GROUP = 256  # in memory while writing


@dataclass(frozen=True)
class MaskGroupRow:
    """One question.

    Attributes:
        sample_id: as published.
        image: file name within the image folder.
        query: the prompt, with `<mask-ref>` for each of `references`.
        gt_mask_pool, references, mask_pool: COCO RLE whose counts are str.
        targets: indices into gt_mask_pool.
        image_size: (H, W).
        kind: kind of the prompt.

    Raises:
        ValueError: references do not match the placeholders, or targets are not in the pool.
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


def write_maskgroups(root: Path, split: str, rows: Iterable[MaskGroupRow]) -> Path:
    """Write `root/{split}.parquet`, whole or not at all, and return its path. The caller writes the images.

    `rows` may be a generator; it is not held in memory.
    """
    root.mkdir(parents=True, exist_ok=True)
    path, records = root / f"{split}.parquet", map(as_record, rows)
    rle = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.string()),
            ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
            ("mask_pool", pa.list_(rle)),
            ("gt_mask_pool", pa.list_(rle)),
            ("gt_mask_group", pa.list_(pa.list_(pa.int32()))),
            (REFERENCE_COLUMN, pa.list_(rle)),
            ("kind", pa.string()),
            ("image_size", pa.list_(pa.int32())),
        ]
    )
    with atomic_file(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        while group := list(islice(records, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))
    return path


def as_record(row: MaskGroupRow) -> dict[str, Any]:
    """The columns of a row."""
    return {
        "id": row.sample_id,
        "image": row.image,
        "conversations": [{"from": "human", "value": f"<image>\n<mask_pool>\n{row.query}"}],
        "mask_pool": row.mask_pool,
        "gt_mask_pool": row.gt_mask_pool,
        "gt_mask_group": [list(row.targets)],
        REFERENCE_COLUMN: row.references,
        "kind": row.kind,
        "image_size": list(row.image_size),
    }
