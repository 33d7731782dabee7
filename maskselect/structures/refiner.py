"""The protocol of refiners, which improve masks after any system.

Shape letters: M masks, h w their size, H W pixels of the image, N proposals.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from maskselect.structures.masks import MaskSet


@runtime_checkable
class Refiner(Protocol):
    """Image and masks to better masks.

    A refiner with weights also has a classmethod `needs` (`structures.needs.StatesNeeds`).

    Attributes:
        name: its name in answers and reports.
    """

    name: str

    def refine(self, image: np.ndarray, masks: Tensor, proposals: MaskSet | None = None) -> Tensor:
        """Refine masks, each independently of the others. Equal input gives equal output. An empty mask stays empty.

        Args:
            image: (H, W, 3) uint8.
            masks: (M, h, w) bool, at any size.
            proposals: the proposals of the image; None if the caller has none. Only some refiners use them.

        Returns:
            (M, H, W) bool, on the CPU. A mask may become empty.
        """
        ...

    def cache_key(self) -> str:
        """See `Cacheable.cache_key`."""
        ...


@runtime_checkable
class CoverageRefiner(Refiner, Protocol):
    """A refiner that also uses `Answer.coverage`, where a system gives it."""

    def refine_covered(
        self, image: np.ndarray, masks: Tensor, coverage: Tensor, proposals: MaskSet | None = None
    ) -> Tensor:
        """Refine masks, and find targets that they leave out.

        Args:
            image, masks, proposals: see `refine`; at least one mask.
            coverage: (h, w) float32 in [0, 1], of all targets together.

        Returns:
            (M + K, H, W) bool, on the CPU: the refined masks, then K more.
        """
        ...
