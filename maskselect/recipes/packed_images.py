"""Images in large files: WebDataset shards and parquet. See `image_sources`."""

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskselect.backends.arrow import pa, pq
from maskselect.data.images import SUFFIXES, load_image
from maskselect.recipes.engine import Record

_PHOTOS = (".jpg", ".jpeg", ".webp", ".png")
"""Of several pictures under one key the first of these is the image: the others are masks or drawings."""

_KEYS = ("key", "__key__", "image_id", "id")


class TarImages:
    """WebDataset shards: uncompressed tar files, in which files whose names are equal up to the first dot are a sample.

    That part of the name is the key. Samples without a picture are skipped.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = {file.name: file for file in files}

    def units(self) -> list[Record]:
        """In the shards' order, from the headers: a unit holds the offset and size of its picture.

        Raises:
            ValueError: a file is not an uncompressed tar or is truncated, or a key occurs twice.
            FileNotFoundError: there is no picture.
        """
        units = (unit for name, file in self.files.items() for unit in _pictures_of(name, file))
        return _distinct(units, "run WebDataset shards with equal keys separately, each into its own folder")

    def load(self, unit: Record) -> np.ndarray:
        """The picture at that offset."""
        path = self.files[unit["tar"]]
        with path.open("rb") as file:
            file.seek(unit["offset"])
            return _decode(file.read(unit["size"]), unit["key"], path)


class ParquetImages:
    """Rows of parquet files with a column of encoded pictures: bytes, or a struct that holds `bytes`.

    Args:
        image_column: its name; default: "image", or the only such column.
        key_column: default: the first existing one of key, __key__, image_id and id, else file name and row.

    Raises:
        ValueError: a file is damaged or lacks a column.
    """

    def __init__(self, files: Sequence[Path], image_column: str | None = None, key_column: str | None = None) -> None:
        self.files = {file.name: file for file in files}
        schema = _parquet(files[0]).schema_arrow
        self.image_column = _image_column(schema, image_column, files[0])
        known = (name for name in _KEYS if name in schema.names)
        self.key_column = key_column if key_column is not None else next(known, None)
        for file in files:
            names = _parquet(file).schema_arrow.names
            if missing := sorted({self.image_column, self.key_column or self.image_column} - set(names)):
                raise ValueError(f"{file} has no column {missing[0]!r}; its columns are {', '.join(names)}")
        self._group: tuple[str, int, pa.ChunkedArray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_group": None}

    def units(self) -> list[Record]:
        """In the files' order.

        Raises:
            ValueError: a row has no key, or a key occurs twice.
            FileNotFoundError: there is no row.
        """
        advice = "--key-column names another column"
        return _distinct((unit for name in self.files for unit in self._rows_of(name)), advice)

    def load(self, unit: Record) -> np.ndarray:
        """The picture of that row. The last row group stays in memory."""
        name, group = unit["file"], unit["group"]
        path = self.files[name]
        if self._group is None or self._group[:2] != (name, group):
            self._group = None  # frees the old group first
            try:
                table = _parquet(path).read_row_group(group, [self.image_column], use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"image {unit['key']!r} in {path}: its row group is damaged: {_one_line(error)}"
                ) from error
            self._group = (name, group, table.column(0))
        value = self._group[2][unit["row"]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise ValueError(
                f"image {unit['key']!r} in {path} is missing; expected the bytes of a picture in column "
                f"{self.image_column!r}"
            )
        return _decode(data, unit["key"], path)

    def _rows_of(self, name: str) -> Iterator[Record]:
        file, start = _parquet(self.files[name]), 0
        keys = None if self.key_column is None else file.read([self.key_column]).column(0).to_pylist()
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            for row in range(count):
                key = f"{name}/{start + row}" if keys is None else keys[start + row]
                if key is None:
                    raise ValueError(f"row {start + row} of {self.files[name]} has no {self.key_column}")
                yield {"key": str(key), "file": name, "group": group, "row": row}
            start += count


def _decode(data: bytes, key: str, path: Path) -> np.ndarray:
    """The bytes of an image file to (H, W, 3) uint8. Errors name the key and the file, see `load_image`."""
    if not data:
        raise ValueError(f"image {key!r} in {path} has 0 bytes; expected an image")
    file = io.BytesIO(data)
    file.name = f"{key!r} in {path}"
    return load_image(file)


def _pictures_of(name: str, file: Path) -> list[Record]:
    best: dict[str, tuple[int, Record]] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, slash, base = member.name.removeprefix("./").rpartition("/")
                stem, dot, suffix = base.partition(".")
                ending = dot + suffix.lower()
                if not (member.isreg() and stem and ending in SUFFIXES):
                    continue
                key = f"{folder}{slash}{stem}"
                rank = _PHOTOS.index(ending) if ending in _PHOTOS else len(_PHOTOS)
                if key not in best or rank < best[key][0]:
                    unit = {"key": key, "tar": name, "offset": member.offset_data, "size": member.size}
                    best[key] = (rank, unit)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{file} is truncated or no uncompressed tar: {_one_line(error)}") from error
    return [unit for _, unit in best.values()]


def _distinct(units: Iterable[Record], advice: str) -> list[Record]:
    by_key: dict[str, Record] = {}
    for unit in units:
        if by_key.setdefault(unit["key"], unit) is not unit:
            raise ValueError(f"two images have the key {unit['key']!r}; expected distinct keys ({advice})")
    if not by_key:
        raise FileNotFoundError("there is no image to propose for; expected at least one")
    return list(by_key.values())


def _image_column(schema: "pa.Schema", name: str | None, file: Path) -> str:
    encoded = [field.name for field in schema if _holds_bytes(field.type)]
    column = name or ("image" if "image" in encoded else encoded[0] if len(encoded) == 1 else None)
    if column not in encoded:
        fault = f"column {name!r} of {file} holds no bytes" if name else f"{file} does not tell its image column"
        raise ValueError(f"{fault}; expected --image-column to be one of: {', '.join(encoded) or 'none has any'}")
    return str(column)


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
