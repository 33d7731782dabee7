"""Images that cannot be used, and which ones come in their place."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from maskselect.structures.groups import GroupSource, UnusableImageError
from maskselect.structures.left_out import LeftOut

Made = TypeVar("Made")
_TRIES = 64  # images that are tried in place of one that cannot be used


def made_or_substituted(
    make: Callable[[int], Made], source: GroupSource, item: int, seed: int, left_out: LeftOut | None
) -> Made:
    """What `make` gives for an image, or for another one where the image cannot be used.

    The other one follows from the seed of the draw alone. So a resumed run takes the same one, and the batches of
    several processes stay equally large.

    Args:
        make: raises UnusableImageError.
        left_out: gets the images that cannot be used; without it the first one raises.

    Raises:
        UnusableImageError: about the first image, when no other one can be used either.
    """
    tries = 0 if left_out is None else _TRIES
    others = np.random.default_rng((seed, 1)).integers(len(source), size=tries).tolist()
    first: UnusableImageError | None = None
    for chosen in (item, *others):
        try:
            return make(chosen)
        except UnusableImageError as error:
            first = first or error
            if left_out is not None:
                left_out.add(error.image, error)
    assert first is not None
    raise first
