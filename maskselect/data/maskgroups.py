"""MaskGroups-HQ's format (RAS, arXiv 2506.05342; https://huggingface.co/datasets/Shengcao1006/MaskGroups-HQ).

On disk: `{split}.parquet`, `.json` or `.jsonl` (or parquet shards `{split}-*.parquet`, also in `data/`), with images in
`images_resized/` or `images/`, or in `images_resized.zip`, which is then unpacked. Columns, one row a question:

- `id`; `image`: file name within the image folder.
- `conversations`: [{from, value}]; the human turn is "<image>\\n<mask_pool>\\n{query}".
- `mask_pool`: proposed masks as COCO RLE. Candidates only; they are never ground truth.
- `gt_mask_pool`: annotated masks as COCO RLE.
- `gt_mask_group`: [[indices into gt_mask_pool]]; the inner list may be empty.
- the reference masks as COCO RLE, one for each `<mask-ref>` of the query, in order. The published name of this column
  is not known: it is the setting `reference_column`.
- `kind` and `image_size` ([h, w]): written by us, not needed when reading.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.data.files import inside, unpack
from maskselect.data.images import image_size
from maskselect.data.rows import JsonRows, ParquetRows, Rows
from maskselect.data.values import by_key, whole
from maskselect.ops import masks, rle
from maskselect.ops.atomic import atomic_folder
from maskselect.structures.sample import MASK_REF, Prompt, Sample

REFERENCE_COLUMN = "mask_refs"
IMAGE_FOLDERS = ("images_resized", "images")
IMAGE_ZIP = "images_resized.zip"
_PLACEHOLDERS = (MASK_REF, "<mask_ref>")  # the paper's spelling, and the one that <mask_pool> lets expect
_POOL = "mask_pool"
_NEEDED = {"id", "image", "conversations", "gt_mask_pool", "gt_mask_group"}


class MaskGroupsDataset:
    """Samples of one split, decoded one at a time on access.

    root: folder with the layout above.
    split: name of the file without its suffix.
    reference_column: where the reference masks are.
    limit: only the first so many rows.

    Raises FileNotFoundError when the layout is not there, ValueError when columns are missing or a file is damaged.
    """

    def __init__(
        self, root: str | Path, split: str, reference_column: str = REFERENCE_COLUMN, limit: int | None = None
    ) -> None:
        self.root, self.split, self.reference_column = Path(root), split, reference_column
        files = find_split(self.root, split)
        self._images = _find_images(self.root)
        self._rows: Rows = ParquetRows(files) if files[0].suffix == ".parquet" else JsonRows(files[0])
        self._count = len(self._rows) if limit is None else min(limit, len(self._rows))
        self._check_columns(files[0])
        ids = self._rows.column("id") if "id" in self._rows.columns else []
        by_key(ids, str, files[0] if len(files) == 1 else f"{files[0]} and its further shards", "row")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """Masks at the image's own size; those stored at another are resized by nearest neighbour.

        Raises ValueError, naming the sample, when it contradicts itself; FileNotFoundError when its image is missing.
        """
        row = self._row(index)
        with self._naming(row):
            path = inside(self._images, str(row["image"]), "image")
            told = row.get("image_size")
            return self._sample(row, path, image_size(path) if told is None else _size(told))

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        return [str(image) for image in self._rows.column("image")[: self._count]]

    def mask_pool(self, index: int) -> list[rle.Rle]:
        """The stored candidates of a sample, not decoded; an empty list where the file has none."""
        if _POOL not in self._rows.columns:
            return []
        return _plain(self._rows.row(self._checked(index), frozenset({_POOL})).get(_POOL)) or []

    @contextmanager
    def _naming(self, row: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            raise ValueError(f"{self._sample_named(row)}: it has no {error}") from error
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._sample_named(row)}: {error}") from error

    def _sample_named(self, row: dict[str, Any]) -> str:
        return f"sample {row.get('id')} of {self.root}, split {self.split!r}"

    def _checked(self, index: int) -> int:
        if not -self._count <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        return index % self._count

    def _row(self, index: int) -> dict[str, Any]:
        wanted = frozenset(self._rows.columns - {_POOL})  # the candidates are most of the bytes
        return {name: _plain(value) for name, value in self._rows.row(self._checked(index), wanted).items()}

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
        found = self._rows.columns
        if len(self._rows) and (missing := sorted(_NEEDED - found)):
            raise ValueError(f"{file} has no column(s) {', '.join(missing)}; found {', '.join(sorted(found))}")
        if self.reference_column in found:
            return
        for told in self._rows.column("conversations"):
            if MASK_REF in _text(told):
                raise ValueError(
                    f"{file} has prompts with {MASK_REF} but no column {self.reference_column!r} of reference masks; "
                    f"found {', '.join(sorted(found))}: name the right one as reference_column"
                )


def find_split(root: Path, split: str) -> list[Path]:
    """The file of a split, or its parquet shards. Raises FileNotFoundError saying what was looked for."""
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
        return _unpacked(root)
    looked = ", ".join(f"{name}/" for name in IMAGE_FOLDERS)
    raise FileNotFoundError(f"no image folder in {root}: looked for {looked} and {IMAGE_ZIP}")


def _unpacked(root: Path) -> Path:
    """The published zip, unpacked beside itself. The folder has its name only when it is whole."""
    folder = root / IMAGE_FOLDERS[0]
    with atomic_folder(folder, replace=True) as part:
        unpack(root / IMAGE_ZIP, part, inner=IMAGE_FOLDERS[0])  # some zips hold the folder, some what is in it
    return folder


def _plain(value: Any) -> Any:
    """Nested values that a file keeps as JSON text, parsed; everything else as it is."""
    return json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value


def _text(conversations: Any) -> str:
    """The question, or nothing for a row without one: it is refused when it is asked for."""
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


def _size(told: Any) -> tuple[int, int]:
    """(H, W). Raises ValueError for anything else."""
    sides = [whole(side) or 0 for side in told] if isinstance(told, list | tuple) else []
    if len(sides) != 2 or not all(0 < side <= rle.MAX_SIDE for side in sides):
        raise ValueError(f"image_size is {str(told)[:40]}; expected [height, width], 1 to {rle.MAX_SIDE}")
    return sides[0], sides[1]


def _targets(group: list[Any] | None, pool: int) -> tuple[int, ...]:
    """Indices of the first group, checked against the pool's length."""
    first = group[0] if group and isinstance(group[0], list) else group
    targets = tuple(int(index) for index in first or [])
    if any(not 0 <= index < pool for index in targets):
        raise ValueError(f"gt_mask_group holds {max(targets)} but gt_mask_pool has {pool} masks")
    return targets


def _decode(codes: list[rle.Rle], size: tuple[int, int]) -> Tensor:
    """RLEs of whatever size to (N, H, W) bool at `size`."""
    out = torch.zeros(len(codes), *size, dtype=torch.bool)
    for row, code in zip(out, codes, strict=True):
        row[:] = masks.resize_nearest(torch.from_numpy(rle.decode(code, size))[None], size)[0]
    return out
