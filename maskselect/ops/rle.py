"""COCO run-length encoding, through pycocotools, which is the definition of the format."""

from typing import Any

import numpy as np
from pycocotools import mask as coco

Rle = dict[str, Any]
"""`{"size": [H, W], "counts": str}`; counts is COCO's compressed string, as JSON files hold it."""


def encode(masks: np.ndarray) -> list[Rle]:
    """(N, H, W) bool to N compressed RLEs whose counts are str, ready for JSON.

    One mask at a time: the encoder wants a column-major copy, which for many large masks would not fit into memory.
    """
    codes = (coco.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks)
    return [{"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()} for code in codes]


def to_compressed(segmentation: Rle | list[Any], size: tuple[int, int]) -> Rle:
    """Any COCO segmentation (polygon list, uncompressed or compressed RLE, list of RLEs) to one RLE with bytes counts.

    size: (H, W) of the image, used by polygons, which carry none.
    Raises ValueError when the segmentation is none of these, or is damaged.
    """
    height, width = size
    try:
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            if isinstance(counts, list):
                return coco.frPyObjects(segmentation, height, width)
            return {"size": segmentation["size"], "counts": counts.encode() if isinstance(counts, str) else counts}
        if segmentation and isinstance(segmentation[0], dict):
            return coco.merge([to_compressed(part, size) for part in segmentation])
        polygons = [p for p in segmentation if len(p) >= 6 and len(p) % 2 == 0]
        if not polygons:
            return coco.encode(np.zeros((height, width), np.uint8, order="F"))
        return coco.merge(coco.frPyObjects(polygons, height, width))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not a COCO segmentation: {str(segmentation)[:80]}") from error


def decode(segmentation: Rle | list[Any], size: tuple[int, int] | None = None) -> np.ndarray:
    """One COCO segmentation to (H, W) bool. `size` (H, W) is needed for polygons only.

    Raises ValueError for a segmentation that is not COCO's, or whose runs do not fill its size.
    """
    if size is None:
        if not isinstance(segmentation, dict) or "size" not in segmentation:
            raise ValueError("a polygon has no size of its own: pass size=(H, W)")
        size = (int(segmentation["size"][0]), int(segmentation["size"][1]))
    compressed = to_compressed(segmentation, size)
    try:
        return coco.decode(compressed).astype(bool)
    except (ValueError, TypeError) as error:
        raise ValueError(f"undecodable RLE of size {compressed.get('size')}: {error}") from error


def decode_many(segmentations: list[Rle], size: tuple[int, int]) -> np.ndarray:
    """N RLEs to (N, H, W) bool. An empty list gives (0, *size)."""
    if not segmentations:
        return np.zeros((0, *size), bool)
    return np.stack([decode(s, size) for s in segmentations])
