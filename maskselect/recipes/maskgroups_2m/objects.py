"""Objects of an image as several annotators drew them, made into one list without repeats."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskselect.ops import packed
from maskselect.ops.rle import Rle


@dataclass(frozen=True)
class Drawn:
    """An object with its mask.

    code: COCO RLE, compressed, at the image's own size.
    names: what it is called; attributes: what it is like.
    """

    code: Rle
    names: tuple[str, ...]
    attributes: tuple[str, ...] = ()


def merge(objects: Sequence[Drawn], least_iou: float) -> tuple[list[Drawn], list[int]]:
    """Objects whose masks overlap by an IoU of at least `least_iou` become one, with all their names and attributes.

    Earlier objects go before: the mask of the first of those that are merged is kept. Gives the merged objects, and of
    each object its place among them.
    """
    overlaps = packed.rle_iou([o.code for o in objects], [o.code for o in objects])
    kept: list[int] = []
    places: list[int] = []
    for number in range(len(objects)):
        near = overlaps[number, kept]
        if len(near) and near.max() >= least_iou:
            places.append(int(np.argmax(near)))
        else:
            places.append(len(kept))
            kept.append(number)
    merged = [
        Drawn(
            objects[first].code, _joined(objects, places, place, "names"), _joined(objects, places, place, "attributes")
        )
        for place, first in enumerate(kept)
    ]
    return merged, places


def _joined(objects: Sequence[Drawn], places: list[int], place: int, field: str) -> tuple[str, ...]:
    own = [o for o, its_place in zip(objects, places, strict=True) if its_place == place]
    return tuple(dict.fromkeys(word for o in own for word in getattr(o, field)))
