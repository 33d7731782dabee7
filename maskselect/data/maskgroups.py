"""MaskGroups-HQ's format (RAS, arXiv 2506.05342; https://huggingface.co/datasets/Shengcao1006/MaskGroups-HQ).

On disk: `{split}.parquet`, `.json` or `.jsonl` (or parquet shards `{split}-*.parquet`, also in `data/`), with images in
`images_resized/` or `images/`, or in `images_resized.zip`, which is then unpacked. Columns, one row a question:

- `id`; `image`: file name within the image folder.
- `conversations`: [{from, value}]; the human turn is "<image>\\n<mask_pool>\\n{query}".
- `mask_pool`: proposed masks as COCO RLE; not read.
- `gt_mask_pool`: annotated masks as COCO RLE.
- `gt_mask_group`: [[indices into gt_mask_pool]]; the inner list may be empty.
- the reference masks as COCO RLE, one for each `<mask-ref>` of the query, in order. The published name of this column
  is not known, so it is an argument, `reference_column`.
- `kind` and `image_size` ([h, w]): our additions, optional.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.data.files import inside, unpack
from maskselect.data.images import image_size
from maskselect.data.reader import Reader
from maskselect.data.rows import JsonRows, ParquetRows
from maskselect.data.values import by_key, whole
from maskselect.ops import masks, rle
from maskselect.ops.atomic import atomic_folder
from maskselect.structures.sample import MASK_REF, Prompt, Sample

REFERENCE_COLUMN = "mask_refs"
IMAGE_FOLDERS = ("images_resized", "images")
IMAGE_ZIP = "images_resized.zip"
_PLACEHOLDERS = (MASK_REF, "<mask_ref>")  # the paper's spelling, and one in the style of <mask_pool>
_POOL = "mask_pool"
_NEEDED = {"id", "image", "conversations", "gt_mask_pool", "gt_mask_group"}


class MaskGroupsDataset(Reader[Sample]):
    """Samples of one split, decoded on access.

    Args:
        root: folder with the layout above.
        split: name of the file without its suffix.
        reference_column: column of the reference masks.

    Raises:
        FileNotFoundError: the layout does not exist.
        ValueError: columns are missing, or a file is damaged.
    """

    def __init__(self, root: str | Path, split: str, reference_column: str = REFERENCE_COLUMN) -> None:
        self.root, self.split, self.reference_column = Path(root), split, reference_column
        files = find_split(self.root, split)
        self._images = _find_images(self.root)
        self._table = ParquetRows(files) if files[0].suffix == ".parquet" else JsonRows(files[0])
        self._rows = range(len(self._table))
        self._check_columns(files[0])
        ids = self._table.column("id") if "id" in self._table.columns else []
        by_key(ids, str, files[0] if len(files) == 1 else f"{files[0]} and its further shards", "row")

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample. Masks of another size than the image are resized by nearest neighbour.

        Raises:
            ValueError: it contradicts itself; the message names the sample.
            FileNotFoundError: its image does not exist.
        """
        columns = frozenset(self._table.columns - {_POOL})  # the candidates are most of the bytes
        row = {name: _plain(value) for name, value in self._table.row(self._rows[index], columns).items()}
        try:
            path = inside(self._images, str(row["image"]), "image")
            size = row.get("image_size")
            return self._sample(row, path, image_size(path) if size is None else _size(size))
        except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
            cause = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"sample {row.get('id')} of {self.root}, split {self.split!r}: {cause}") from error

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        return [str(image) for image in self._table.column("image")]

    def _sample(self, row: dict[str, Any], path: Path, size: tuple[int, int]) -> Sample:
        pool_codes, reference_codes = row["gt_mask_pool"] or [], row.get(self.reference_column) or []
        targets = _targets(row["gt_mask_group"], len(pool_codes))
        references = _decode(reference_codes, size)
        return Sample(
            image=path,
            image_id=str(row["image"]),
            sample_id=str(row["id"]),
            prompt=Prompt(_query(row["conversations"]), references),
            gt_pool=_decode(pool_codes, size),
            targets=targets,
            reference_ids=tuple(pool_codes.index(c) if c in pool_codes else -1 for c in reference_codes),
            kind=row.get("kind") or "",
        )

    def _check_columns(self, file: Path) -> None:
        columns = self._table.columns
        if len(self) and (missing := sorted(_NEEDED - columns)):
            raise ValueError(f"{file} has no column(s) {', '.join(missing)}; found {', '.join(sorted(columns))}")
        if self.reference_column in columns:
            return
        for conversations in self._table.column("conversations"):
            if MASK_REF in _text(conversations):
                raise ValueError(
                    f"{file} has prompts with {MASK_REF} but no column {self.reference_column!r} of reference masks; "
                    f"found {', '.join(sorted(columns))}: name the right one as reference_column"
                )


def find_split(root: Path, split: str) -> list[Path]:
    """The file of a split, or its parquet shards. Raises FileNotFoundError if there is none."""
    for suffix in ("parquet", "jsonl", "json"):
        if (root / f"{split}.{suffix}").is_file():
            return [root / f"{split}.{suffix}"]
    for folder in (root, root / "data"):
        if shards := sorted(folder.glob(f"{split}-*-of-*.parquet")):
            return shards
    raise FileNotFoundError(
        f"no split {split!r} in {root}: looked for {split}.parquet, {split}.jsonl, {split}.json and "
        f"[data/]{split}-*-of-*.parquet"
    )


def _find_images(root: Path) -> Path:
    for name in IMAGE_FOLDERS:
        if (root / name).is_dir():
            return root / name
    if (root / IMAGE_ZIP).is_file():
        with atomic_folder(root / IMAGE_FOLDERS[0], replace=True) as part:
            unpack(root / IMAGE_ZIP, part, inner=IMAGE_FOLDERS[0])  # some zips have the folder, some its content
        return root / IMAGE_FOLDERS[0]
    looked = ", ".join(f"{name}/" for name in IMAGE_FOLDERS)
    raise FileNotFoundError(f"no image folder in {root}: looked for {looked} and {IMAGE_ZIP}")


def _plain(value: Any) -> Any:
    """Parse a nested value that is stored as JSON text; other values stay unchanged."""
    return json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value


def _text(conversations: Any) -> str:
    """The question; "" for a row without one, which raises on access."""
    try:
        return _query(_plain(conversations))
    except (ValueError, KeyError, TypeError):
        return ""


def _query(conversations: list[dict[str, str]]) -> str:
    """The question in the first human turn, with `<mask-ref>` for every spelling of the placeholder."""
    human = next((turn["value"] for turn in conversations if turn["from"] in ("human", "user")), None)
    if human is None:
        raise ValueError("its conversation has no human turn")
    query = human.rpartition("<mask_pool>")[2].replace("<image>", "")
    for spelling in _PLACEHOLDERS:
        query = query.replace(spelling, MASK_REF)
    return query.strip()


def _size(value: Any) -> tuple[int, int]:
    sides = [whole(side) or 0 for side in value] if isinstance(value, list | tuple) else []
    if len(sides) != 2 or not all(0 < side <= rle.MAX_SIDE for side in sides):
        raise ValueError(f"image_size is {str(value)[:40]}; expected [height, width], 1 to {rle.MAX_SIDE}")
    return sides[0], sides[1]


def _targets(group: list[Any] | None, pool: int) -> tuple[int, ...]:
    """Indices of the first group, checked against the pool's length."""
    first = group[0] if group and isinstance(group[0], list) else group
    targets = tuple(int(index) for index in first or [])
    if any(not 0 <= index < pool for index in targets):
        raise ValueError(f"gt_mask_group holds {max(targets)} but gt_mask_pool has {pool} masks")
    return targets


def _decode(codes: list[rle.Rle], size: tuple[int, int]) -> Tensor:
    """RLEs of any size to (N, H, W) bool at `size`."""
    out = torch.zeros(len(codes), *size, dtype=torch.bool)
    for row, code in zip(out, codes, strict=True):
        row[:] = masks.resize_nearest(torch.from_numpy(rle.decode(code, size))[None], size)[0]
    return out
