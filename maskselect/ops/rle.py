"""COCO run-length encoding by pycocotools, the reference implementation."""

from typing import Any

import numpy as np
from pycocotools import mask as coco

Rle = dict[str, Any]
"""`{"size": [H, W], "counts": str}`; counts is COCO's compressed string, as in JSON files."""

MAX_SIDE = 100_000
"""Greatest side in pixels; a greater one is an error in the file."""

_MOST_GROUPS = 7  # 35 bits, enough for run lengths of 32 bits
_LONGEST = 1e7  # pixels of a polygon's outline


def encode(masks: np.ndarray) -> list[Rle]:
    """(N, H, W) bool to N compressed RLEs whose counts are str, for JSON.

    Masks are encoded one by one, because the encoder needs a column-major copy.
    """
    codes = (coco.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks)
    return [{"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()} for code in codes]


def to_compressed(segmentation: Rle | list[Any], size: tuple[int, int]) -> Rle:
    """Any COCO segmentation (polygon list, uncompressed or compressed RLE, list of RLEs) to one RLE with bytes counts.

    The input is validated first, because pycocotools does not.

    Args:
        segmentation: the segmentation.
        size: (H, W) of the image, for polygons.

    Raises:
        ValueError: the segmentation has another type, or is damaged.
    """
    if isinstance(segmentation, dict):
        return _checked_rle(segmentation)
    if not isinstance(segmentation, list | tuple):
        raise ValueError(f"not a COCO segmentation: {str(segmentation)[:80]}")
    if segmentation and isinstance(segmentation[0], dict):
        parts = [to_compressed(part, size) for part in segmentation]
        if len({tuple(part["size"]) for part in parts}) > 1:
            raise ValueError(f"a list of RLEs of different sizes: {[part['size'] for part in parts][:4]}")
        return coco.merge(parts)
    polygons = [p for p in map(_checked_polygon, segmentation) if len(p) >= 6 and len(p) % 2 == 0]
    if not polygons:
        return coco.encode(np.zeros(size, np.uint8, order="F"))
    return coco.merge(coco.frPyObjects(polygons, *size))


def run_lengths(counts: bytes) -> np.ndarray:
    """The run lengths of a compressed RLE, background first: (R,) int64.

    A number is stored in groups of five bits, lowest first, with a sixth bit if more groups follow. From the fourth on,
    it is the difference to the number two places before.

    Raises:
        ValueError: the bytes are not such a string.
    """
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if len(groups) == 0:
        return groups
    last = (groups & 32) == 0
    if groups.min() < 0 or groups.max() > 63 or not last[-1]:
        raise ValueError("its counts are not a run-length string of COCO")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_GROUPS:
        raise ValueError("its counts hold a number that is too large")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    values = np.add.reduceat((groups & 31) << (5 * place), starts)
    values -= np.where(groups[ends] & 16, 1 << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def decode(segmentation: Rle | list[Any], size: tuple[int, int] | None = None) -> np.ndarray:
    """One COCO segmentation to (H, W) bool. `size` (H, W) is needed for polygons only.

    Raises:
        ValueError: it is not a COCO segmentation, or its runs do not fill its size.
    """
    if size is None:
        if not isinstance(segmentation, dict):
            raise ValueError("a polygon has no size of its own: pass size=(H, W)")
        size = _checked_size(segmentation)
    return coco.decode(to_compressed(segmentation, size)).astype(bool)


def area(code: Rle) -> int:
    """Pixels of a COCO RLE. Raises ValueError as `decode`."""
    return int(coco.area(to_compressed(code, _checked_size(code))))


def decode_many(segmentations: list[Rle], size: tuple[int, int]) -> np.ndarray:
    """N RLEs to (N, H, W) bool. An empty list gives (0, *size)."""
    if not segmentations:
        return np.zeros((0, *size), bool)
    return np.stack([decode(s, size) for s in segmentations])


def _checked_rle(segmentation: Rle) -> Rle:
    size, counts = _checked_size(segmentation), segmentation.get("counts")
    if isinstance(counts, str):
        if not counts.isascii():
            raise ValueError("its counts are not a run-length string of COCO")
        counts = counts.encode()
    if isinstance(counts, bytes):
        runs = run_lengths(counts)
    elif isinstance(counts, list) and all(_is_whole(n, 2**32) for n in counts):
        counts = [int(n) for n in counts]
        runs = np.array(counts, np.int64)
    else:
        raise ValueError(f"not a COCO segmentation: counts {str(counts)[:60]} are neither a text nor a list of runs")
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"undecodable RLE of size {list(size)}: its runs hold {runs.sum()} pixels")
    if isinstance(counts, list):
        return coco.frPyObjects({"size": list(size), "counts": counts}, *size)
    return {"size": list(size), "counts": counts}


def _checked_size(segmentation: Rle) -> tuple[int, int]:
    size = segmentation.get("size")
    sides = list(size) if isinstance(size, list | tuple) else []
    if len(sides) != 2 or not all(_is_whole(side, MAX_SIDE + 1) for side in sides):
        raise ValueError(f"RLE of size {str(size)[:40]}; expected [H, W] up to {MAX_SIDE}")
    return int(sides[0]), int(sides[1])


def _is_whole(value: Any, end: int) -> bool:
    """Whether a value is an integer, such as 40 or 40.0, from 0 to end - 1."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and 0 <= value < end


def _checked_polygon(polygon: Any) -> list[float]:
    """Corners x, y, x, y, …, with a limit for the length of the outline, which is drawn pixel by pixel."""
    try:
        corners = np.asarray(polygon, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"polygon {str(polygon)[:60]} does not hold numbers alone") from error
    if corners.ndim != 1 or not np.isfinite(corners).all():
        raise ValueError(f"polygon {str(polygon)[:60]} is not a list of finite numbers")
    points = corners[: len(corners) // 2 * 2].reshape(-1, 2)
    if np.abs(points).max(initial=0) > _LONGEST or np.abs(np.diff(points, axis=0)).sum() > _LONGEST:
        raise ValueError(f"polygon {str(polygon)[:60]} is more than {_LONGEST:.0e} pixels long")
    return [float(value) for value in corners]
