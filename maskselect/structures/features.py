"""`FeatureInfo` and `FeatureMap`: what an encoder promises and what it gives."""

from dataclasses import dataclass

from torch import Tensor

from maskselect.structures.by_value import ByValue


@dataclass(frozen=True)
class FeatureInfo:
    """What an encoder declares about itself; a contract test runs each encoder and compares.

    name: short name, unique within an ensemble.
    channels: C of its map.
    input_size: side in pixels of the square it reads.
    grid: (h, w) of its map.
    mean, std: RGB normalisation for images in [0, 1].
    covered: share of the square's side, from its left and its top, over which the grid lies: 1, but for a ViT whose
        patches do not divide the side (384 pixels by patches of 14 leave 6 unread to the right and below).
    """

    name: str
    channels: int
    input_size: int
    grid: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    covered: float = 1.0


@dataclass(frozen=True, eq=False, repr=False)
class FeatureMap(ByValue):
    """A map over the square-padded image.

    features: (B, C, h, w) float.
    """

    features: Tensor
    info: FeatureInfo
