"""`PromptForwarding`: passes boxes and points on to another proposer."""

import numpy as np
from torch import Tensor

from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer, Proposer


class PromptForwarding:
    """A `Prompter` that forwards to the first promptable one of `_inner`."""

    _inner: list[Proposer]

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask in a box in pixels: (H, W) bool. Raises ValueError if no inner proposer takes boxes."""
        return self._prompter().segment_box(image, box_xyxy)

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks in boxes (K, 4) in pixels. Raises ValueError if no inner proposer takes boxes."""
        return self._prompter().segment_boxes(image, boxes_xyxy)

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask at a point in pixels: (H, W) bool. Raises ValueError if no inner proposer takes points."""
        return self._prompter().segment_point(image, point_xy)

    def _prompter(self) -> PromptableProposer:
        for proposer in self._inner:
            if isinstance(proposer, PromptableProposer):
                return proposer
        names = ", ".join(type(proposer).__name__ for proposer in self._inner)
        raise ValueError(f"none of {names} can turn a box or point into a mask; give a mask instead")
