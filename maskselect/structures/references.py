"""`MaskRef`, `BoxRef` and `PointRef`: the three ways to point at something in an image instead of describing it."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class MaskRef:
    """A reference mask.

    mask: (H, W) bool.
    origin: where it came from, for error messages.

    Raises ValueError at construction when it is of another type or holds no pixel.
    """

    mask: np.ndarray
    origin: str = "reference mask"

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_:
            raise ValueError(f"{self.origin} must be (H, W) bool, got {self.mask.shape} {self.mask.dtype}")
        if not self.mask.any():
            raise ValueError(f"{self.origin} is empty: all of its pixels are zero; expected some non-zero ones")

    def check(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError when the mask is not of `image_size`, (H, W)."""
        if self.mask.shape != image_size:
            height, width = self.mask.shape
            raise ValueError(
                f"{self.origin} is {width}x{height} but the image is {image_size[1]}x{image_size[0]} (width x height); "
                "expected a mask of the image's own size"
            )


@dataclass(frozen=True)
class BoxRef:
    """A box around the thing meant.

    box_xyxy: x0, y0, x1, y1 in pixels, right and bottom exclusive.

    Raises ValueError at construction when it encloses nothing or is not finite.
    """

    box_xyxy: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.box_xyxy
        if not (x0 < x1 and y0 < y1 and all(map(math.isfinite, self.box_xyxy))):
            raise ValueError(f"reference {self} is empty; expected x0 < x1 and y0 < y1")

    def __str__(self) -> str:
        return "box:" + ",".join(f"{value:g}" for value in self.box_xyxy)

    def check(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError when the box reaches outside an image of `image_size`, (H, W)."""
        (x0, y0, x1, y1), (height, width) = self.box_xyxy, image_size
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise ValueError(
                f"reference {self} lies outside the image, which is {width}x{height}; "
                f"expected 0 <= x <= {width} and 0 <= y <= {height}"
            )


@dataclass(frozen=True)
class PointRef:
    """A point on the thing meant.

    point_xy: x, y in pixels.

    Raises ValueError at construction when it is not finite.
    """

    point_xy: tuple[float, float]

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.point_xy)):
            raise ValueError(f"reference {self} is not a point; expected two finite numbers")

    def __str__(self) -> str:
        return "point:" + ",".join(f"{value:g}" for value in self.point_xy)

    def check(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError when the point lies outside an image of `image_size`, (H, W)."""
        (x, y), (height, width) = self.point_xy, image_size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"reference {self} lies outside the image, which is {width}x{height}; "
                f"expected 0 <= x < {width} and 0 <= y < {height}"
            )


Reference = MaskRef | BoxRef | PointRef
