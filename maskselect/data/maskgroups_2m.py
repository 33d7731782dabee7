"""MaskGroups-2M in our own form: parquet shards with one row per image, from `data build maskgroups-2m`.

MaskGroups-2M (RAS, arXiv 2506.05342, section 4.1) is not published, but the paper describes how to make it. Two million
rows in MaskGroups-HQ's form would repeat every mask of an image for each prompt, so here a row has the masks and all
prompts of an image.

On disk: `train-00000-of-00012.parquet`, ..., and `images/` with links to the folders of the source images. An image of
two sources has a row for each. Columns: `image` (file name within `images/`), `image_id` ("coco/139"), `source`
("coco", "vg" or "refer"), `height`, `width`, `masks` (COCO RLE), `asked` (number of prompts), `prompts`: list of
{`text` with a `<mask-ref>` for each reference, `kind`, `references`, `targets`: places among the masks}.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.backends.arrow import pa, pq
from maskselect.data.files import Images, inside
from maskselect.data.index import Key
from maskselect.data.maskgroups import find_split
from maskselect.data.questions import ImageQuestions, Question, QuestionedImage
from maskselect.data.rows import ParquetRows
from maskselect.ops import rle

IMAGES = "images"
_ROWS_PER_GROUP = 16  # read and decompressed for one image


@cache
def _schema() -> "pa.Schema":
    """The columns of the parquet files."""
    places = pa.list_(pa.int32())
    prompt = [("text", pa.string()), ("kind", pa.string()), ("references", places), ("targets", places)]
    return pa.schema(
        [
            ("image", pa.string()),
            ("image_id", pa.string()),
            ("source", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("masks", pa.list_(pa.struct([("size", places), ("counts", pa.string())]))),
            ("asked", pa.int32()),
            ("prompts", pa.list_(pa.struct(prompt))),
        ]
    )


class ImageRows:
    """The form of a shard, see the top of the file."""

    suffix = "parquet"

    def write(self, path: Path, records: list[dict[str, Any]]) -> None:
        """Write one file."""
        rows = iter(records)
        with pq.ParquetWriter(path, _schema(), compression="zstd") as writer:
            while group := list(islice(rows, _ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, _schema()))


class MaskGroups2MDataset(ImageQuestions):
    """Samples of the built set; masks are read on demand. Splits: "train"."""

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = Path(root)
        self.files = find_split(self.root, split)
        self.images = Images([self.root / IMAGES], "it is made beside the shards")
        self._table = ParquetRows(self.files)
        if missing := sorted(set(_schema().names) - self._table.columns):
            raise ValueError(
                f"{self.files[0]} has no column(s) {', '.join(missing)}; expected what data build maskgroups-2m writes"
            )
        self._names = self._table.column("image_id")
        super().__init__(self.root, _tags(self._names, self._table.column("asked")), "p")

    def _name(self, key: Key) -> str:
        return str(self._names[int(key)])

    def _read(self, key: Key) -> QuestionedImage:
        row = self._table.row(int(key))
        size = (row["height"], row["width"])
        try:
            masks = _decoded(row["masks"], size)
            questions = [
                _question(f"{row['source']}:{number}", prompt, len(masks))
                for number, prompt in enumerate(row["prompts"])
            ]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"image {row['image_id']!r} in {self.root}: {error}") from error
        path = inside(self.root / IMAGES, str(row["image"]), "image")
        return QuestionedImage(path, str(row["image_id"]), masks, len(masks), questions)


def _tags(images: Sequence[str], prompts: Sequence[int]) -> Iterator[tuple[Key, str]]:
    """The number of each row, and a letter for each of its prompts; rows of one image follow each other."""
    first: dict[str, int] = {}
    for number, image in enumerate(images):
        first.setdefault(image, number)
    order = sorted(range(len(images)), key=lambda number: first[images[number]])
    return ((number, "p" * prompts[number]) for number in order)


def _question(key: str, prompt: dict[str, Any], pool: int) -> Question:
    targets, references = tuple(prompt["targets"]), tuple(prompt["references"])
    if wrong := [place for place in targets + references if not 0 <= place < pool]:
        raise ValueError(f"prompt {key} refers to mask {wrong[0]} of {pool}")
    return Question("p", key, prompt["text"], targets, prompt["kind"] or "", references=references)


def _decoded(codes: list[rle.Rle], size: tuple[int, int]) -> Tensor:
    """(N, H, W) bool."""
    if wrong := [code["size"] for code in codes if tuple(code["size"]) != size]:
        raise ValueError(f"a mask is of size {wrong[0]}; expected {list(size)}")
    return torch.from_numpy(rle.decode_many(codes, size))
