"""`FeatureInfo`, `FeatureLevel` and `FeatureMap`: what an encoder declares, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from maskselect.structures.by_value import ByValue


@dataclass(frozen=True)
class FeatureLevel:
    """One map of an encoder.

    Attributes:
        channels: C.
        stride: side of a cell in pixels of the image that the network reads.
    """

    channels: int
    stride: int


@dataclass(frozen=True)
class FeatureInfo:
    """What an encoder declares about itself; a contract test runs each encoder and compares.

    Attributes:
        name: short name, unique within an ensemble.
        levels: its maps, in the order in which `encode` returns them.
        input_size: longer side in pixels to which images are resized.
        grid: (h, w) of its finest map for a square image.
        mean, std: RGB normalisation for images in [0, 1].
        covered: share of a square image's side, from its left and its top, over which the grid lies: 1, but for a ViT
            whose patches do not divide the side (384 pixels by patches of 14 leave 6 unread to the right and below).
        any_shape: whether it reads images that are not square.
    """

    name: str
    levels: tuple[FeatureLevel, ...]
    input_size: int
    grid: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    covered: float = 1.0
    any_shape: bool = False

    @property
    def channels(self) -> int:
        """Channels of all levels together."""
        return sum(level.channels for level in self.levels)


@dataclass(frozen=True, eq=False, repr=False)
class FeatureMap(ByValue):
    """One map of a batch of images.

    Attributes:
        features: (B, C, h, w) float.
        info: the encoder.
        stride: side of a cell in pixels of the image that the network read. Cell (i, j) begins at pixel
            (i * stride, j * stride).
    """

    features: Tensor
    info: FeatureInfo
    stride: int


def finest_first(maps: Sequence[FeatureMap]) -> list[Tensor]:
    """The features of maps by rising stride: (B, C_i, h_i, w_i) each."""
    return [one.features for one in sorted(maps, key=lambda one: one.stride)]
