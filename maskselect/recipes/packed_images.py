"""Images that are packed into large files: WebDataset shards and parquet. See `image_sources`."""

import io
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskselect.backends.arrow import pa, pq
from maskselect.data.images import SUFFIXES, load_image
from maskselect.recipes.engine import Record

_PHOTOS = (".jpg", ".jpeg", ".webp", ".png")
"""Of several pictures under one key the first of these is the image: the others are masks or drawings."""

_KEYS = ("key", "__key__", "image_id", "id")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError)
"""What PIL's readers raise on damaged files."""


class TarImages:
    """WebDataset shards: in uncompressed tar files, files whose names are equal up to their first dot make a sample.

    That part of the name is the key. A sample without a picture is passed over.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = {file.name: file for file in files}
        self._opened: tuple[str, BinaryIO] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def units(self) -> list[Record]:
        """In the shards' order. Only the headers are read; a unit tells where its bytes stand.

        Raises ValueError for a file that is no tar, is truncated or compressed, or where keys repeat.
        """
        found = (unit for name, file in self.files.items() for unit in _pictures_of(name, file))
        return _distinct(found, "WebDataset shards with keys that repeat can be run apart, each into its own folder")

    def load(self, unit: Record) -> np.ndarray:
        """The picture at that place."""
        name = unit["tar"]
        if self._opened is None or self._opened[0] != name:
            if self._opened is not None:
                self._opened[1].close()
            self._opened = (name, self.files[name].open("rb"))
        file = self._opened[1]
        file.seek(unit["offset"])
        return decode_image(file.read(unit["size"]), f"image {unit['key']!r} in {self.files[name]}")


class ParquetImages:
    """Rows of parquet files with a column of encoded pictures: bytes, or a struct that holds `bytes`.

    image_column: its name; default: "image", or the only such column.
    key_column: default: the first of key, __key__, image_id and id that is there, else file name and row.
    """

    def __init__(self, files: Sequence[Path], image_column: str | None = None, key_column: str | None = None) -> None:
        self.files = {file.name: file for file in files}
        first = files[0]
        schema = _parquet(first).schema_arrow
        self.image_column = _image_column(schema, image_column, first)
        known = [name for name in _KEYS if name in schema.names]
        self.key_column = key_column if key_column is not None else next(iter(known), None)
        for file in files:
            names = _parquet(file).schema_arrow.names
            if missing := sorted({self.image_column, self.key_column or self.image_column} - set(names)):
                raise ValueError(f"{file} has no column {missing[0]!r}; its columns are {', '.join(names)}")
        self._group: tuple[str, int, pa.ChunkedArray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_group": None}

    def units(self) -> list[Record]:
        """In the files' order."""
        advice = "--key-column names another column"
        return _distinct((unit for name in self.files for unit in self._rows_of(name)), advice)

    def load(self, unit: Record) -> np.ndarray:
        """The picture of that row. Its row group is read as a whole, and kept until another is asked for."""
        name, group = unit["file"], unit["group"]
        what = f"image {unit['key']!r} in {self.files[name]}"
        if self._group is None or self._group[:2] != (name, group):
            self._group = None  # two groups need not be held at a time
            try:
                read = _parquet(self.files[name]).read_row_group(group, [self.image_column], use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{what}: its row group is damaged: {_one_line(error)}") from error
            self._group = (name, group, read.column(0))
        value = self._group[2][unit["row"]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise ValueError(f"{what} is not there; expected the bytes of a picture in column {self.image_column!r}")
        return decode_image(data, what)

    def _rows_of(self, name: str) -> Iterator[Record]:
        opened, start = _parquet(self.files[name]), 0
        keys = None if self.key_column is None else opened.read([self.key_column]).column(0).to_pylist()
        for group in range(opened.num_row_groups):
            count = opened.metadata.row_group(group).num_rows
            for row in range(count):
                key = f"{name}/{start + row}" if keys is None else keys[start + row]
                if key is None:
                    raise ValueError(f"row {start + row} of {self.files[name]} has no {self.key_column}")
                yield {"key": str(key), "file": name, "group": group, "row": row}
            start += count


def decode_image(data: bytes, what: str) -> np.ndarray:
    """The bytes of an image file to (H, W, 3) uint8, in any mode that `load_image` reads.

    what: how an error names it.  Raises ValueError when they are no image, truncated or damaged.
    """
    if not data:
        raise ValueError(f"{what} has 0 bytes; expected an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of half-damaged metadata and of many pixels
            picture = Image.open(io.BytesIO(data))
            picture.load()
        return load_image(picture)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{what} has too many pixels") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{what} is not an image, or its header is damaged; expected PNG, JPEG, …") from error
    except _BROKEN as error:
        raise ValueError(f"{what} is truncated or damaged: {_one_line(error)}") from error


def _pictures_of(name: str, file: Path) -> list[Record]:
    best: dict[str, tuple[int, Record]] = {}
    try:
        with tarfile.open(file, "r:") as opened:
            for member in opened:
                folder, slash, base = member.name.removeprefix("./").rpartition("/")
                stem, dot, suffix = base.partition(".")
                if not (member.isreg() and stem and dot + suffix.lower() in SUFFIXES):
                    continue
                key, ending = f"{folder}{slash}{stem}", dot + suffix.lower()
                rank = _PHOTOS.index(ending) if ending in _PHOTOS else len(_PHOTOS)
                if key not in best or rank < best[key][0]:
                    unit = {"key": key, "tar": name, "offset": member.offset_data, "size": member.size}
                    best[key] = (rank, unit)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{file} is truncated or no uncompressed tar: {_one_line(error)}") from error
    return [unit for _, unit in best.values()]


def _distinct(units: Iterable[Record], advice: str) -> list[Record]:
    found: dict[str, Record] = {}
    for unit in units:
        if found.setdefault(unit["key"], unit) is not unit:
            raise ValueError(f"two images have the key {unit['key']!r}; expected one each ({advice})")
    if not found:
        raise FileNotFoundError("there is no image to propose for; expected one at least")
    return list(found.values())


def _image_column(schema: "pa.Schema", wanted: str | None, file: Path) -> str:
    encoded = [field.name for field in schema if _holds_bytes(field.type)]
    name = wanted or ("image" if "image" in encoded else encoded[0] if len(encoded) == 1 else None)
    if name not in encoded:
        told = f"column {wanted!r} of {file} holds no bytes" if wanted else f"{file} does not tell its image column"
        raise ValueError(f"{told}; expected --image-column to be one of: {', '.join(encoded) or 'none has any'}")
    return str(name)


def _holds_bytes(kind: "pa.DataType") -> bool:
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _holds_bytes(kind.field(at).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _parquet(file: Path) -> "pq.ParquetFile":
    try:
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is truncated or not parquet: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
