"""`LabelledImage`: an image with a class for each pixel."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from maskselect.structures.by_value import ByValue


@dataclass(frozen=True, eq=False, repr=False)
class LabelledImage(ByValue):
    """One image of a data set of semantic segmentation.

    Attributes:
        image: file, or uint8 array (H, W, 3).
        image_id: as published.
        classes: (H, W) uint8, numbers of classes; 0 is `others`, whatever has no class.
    """

    image: Path | np.ndarray
    image_id: str
    classes: Tensor
