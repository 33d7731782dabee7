"""Subsets of the images of a data set: a part that training leaves out for validation, and a share of the rest.

Whether an image belongs to a subset depends on its id alone, so that data sets with the same pictures hold out the same
ones.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Literal

Part = Literal["all", "training", "held_out"]
"""`training` are the images that are not held out."""

HELD_OUT_SHARE = 0.01
"""Share of the images that is held out by default."""


def picture_number(image: str) -> str:
    """The number in an image id, equal in all data sets: of COCO's 139, coco/139, COCO_train2014_000000000139.jpg.

    An id that does not end in a number stays as it is.

    >>> picture_number("COCO_train2014_000000000139.jpg"), picture_number("coco/139"), picture_number("a")
    ('139', '139', 'a')
    """
    match = re.search(r"(\d+)(\.\w+)?$", image)
    return match[1].lstrip("0") if match else image


def chosen_samples(
    images: Sequence[str],
    part: Part = "all",
    held_out_share: float | None = None,
    image_share: float = 1.0,
    numbered: bool = False,
) -> list[int]:
    """The numbers of the samples whose images belong to a subset, in order.

    Args:
        images: the image of each sample.
        part: of the images.
        held_out_share: share of the images that is held out, at least one image; None for HELD_OUT_SHARE.
        image_share: share of the images of the part, at least one image.
        numbered: the number in an id decides (`picture_number`), as for COCO's pictures, which have other ids in other
            data sets.

    Raises:
        ValueError: a share is out of range.
    """
    share = HELD_OUT_SHARE if held_out_share is None else held_out_share
    for name, value in (("held_out_share", share), ("image_share", image_share)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} is {value}; expected a number above 0, up to 1")
    if part == "all" and image_share == 1:
        return list(range(len(images)))
    kept = {image: picture_number(image) if numbered else image for image in dict.fromkeys(images)}
    if part != "all":
        apart = _lowest(kept, share, "held out")
        kept = {image: name for image, name in kept.items() if (image in apart) == (part == "held_out")}
    if image_share < 1:
        apart = _lowest(kept, image_share, "share")
        kept = {image: name for image, name in kept.items() if image in apart}
    return [number for number, image in enumerate(images) if image in kept]


def _lowest(names: dict[str, str], share: float, salt: str) -> set[str]:
    """The images whose names have the lowest digests: about a share of them, and at least one."""
    digests = {image: hashlib.sha256(f"{salt}/{name}".encode()).digest()[:6] for image, name in names.items()}
    places = {image: int.from_bytes(digest, "big") / 2**48 for image, digest in digests.items()}
    limit = max(share, min(places.values(), default=0.0))
    return {image for image, place in places.items() if place <= limit}
