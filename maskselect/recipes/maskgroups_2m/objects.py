"""Merges the objects of an image from several annotations, without duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskselect.ops import packed
from maskselect.ops.rle import Rle


@dataclass(frozen=True)
class Drawn:
    """An object with its mask.

    Attributes:
        code: compressed COCO RLE at the image's size.
        names: its categories.
        attributes: its attributes.
    """

    code: Rle
    names: tuple[str, ...]
    attributes: tuple[str, ...] = ()


def merge(objects: Sequence[Drawn], least_iou: float) -> tuple[list[Drawn], list[int]]:
    """Merge objects whose masks have an IoU of at least `least_iou`; the first mask and all names and attributes stay.

    Returns:
        The merged objects, and for each object its index among them.
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
    merged = []
    for place, first in enumerate(kept):
        group = [one for one, its_place in zip(objects, places, strict=True) if its_place == place]
        names = tuple(dict.fromkeys(name for one in group for name in one.names))
        attributes = tuple(dict.fromkeys(attribute for one in group for attribute in one.attributes))
        merged.append(Drawn(objects[first].code, names, attributes))
    return merged, places
