"""`MaskRef`, `BoxRef` and `PointRef`: the three forms of a reference."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskselect.ops.masks import binary
from maskselect.structures.by_value import ByValue


@dataclass(frozen=True, eq=False, repr=False)
class MaskRef(ByValue):
    """A reference mask.

    Attributes:
        mask: (H, W) bool, 0 and 1, or 0 and 255; it is copied to bool.
        origin: its name in error messages.

    Raises:
        ValueError: the mask has another shape or other values, or is empty.
    """

    mask: np.ndarray
    origin: str = "reference mask"

    def __post_init__(self) -> None:
        if self.mask.ndim != 2:
            raise ValueError(f"{self.origin} must be (H, W) bool, got {self.mask.shape} {self.mask.dtype}")
        object.__setattr__(self, "mask", binary(self.mask, self.origin))
        if not self.mask.any():
            raise ValueError(f"{self.origin} is empty: all of its pixels are zero; expected some non-zero ones")

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError if the mask does not have `image_size`, (H, W)."""
        if self.mask.shape != image_size:
            height, width = self.mask.shape
            raise ValueError(
                f"{self.origin} is {width}x{height} but the image is {image_size[1]}x{image_size[0]} (width x height); "
                "expected a mask of the image's own size"
            )


@dataclass(frozen=True)
class BoxRef:
    """A box around the referenced object.

    Attributes:
        box_xyxy: x0, y0, x1, y1 in pixels, right and bottom exclusive.

    Raises:
        ValueError: the box is empty or not finite, or has not four numbers.
    """

    box_xyxy: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = box = _floats(self.box_xyxy, "BoxRef((x0, y0, x1, y1))", 4)
        object.__setattr__(self, "box_xyxy", box)
        if not (x0 < x1 and y0 < y1 and all(map(math.isfinite, self.box_xyxy))):
            raise ValueError(f"reference {self} is empty; expected x0 < x1 and y0 < y1")

    def __str__(self) -> str:
        return "box:" + ",".join(f"{value:g}" for value in self.box_xyxy)

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError if the box extends beyond an image of `image_size`, (H, W)."""
        (x0, y0, x1, y1), (height, width) = self.box_xyxy, image_size
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise ValueError(
                f"reference {self} lies outside the image, which is {width}x{height}; "
                f"expected 0 <= x <= {width} and 0 <= y <= {height}"
            )


@dataclass(frozen=True)
class PointRef:
    """A point on the referenced object.

    Attributes:
        point_xy: x, y in pixels.

    Raises:
        ValueError: the point is not finite, or has not two numbers.
    """

    point_xy: tuple[float, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "point_xy", _floats(self.point_xy, "PointRef((x, y))", 2))
        if not all(map(math.isfinite, self.point_xy)):
            raise ValueError(f"reference {self} is not a point; expected two finite numbers")

    def __str__(self) -> str:
        return "point:" + ",".join(f"{value:g}" for value in self.point_xy)

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError if the point is outside an image of `image_size`, (H, W)."""
        (x, y), (height, width) = self.point_xy, image_size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"reference {self} lies outside the image, which is {width}x{height}; "
                f"expected 0 <= x < {width} and 0 <= y < {height}"
            )


Reference = MaskRef | BoxRef | PointRef


def _floats(values: Any, form: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or isinstance(values, str):
        raise ValueError(
            f"reference {str(values)[:60]!r} cannot be read; expected {form} with {count} numbers in pixels"
        )
    return numbers


def as_reference(value: object) -> Reference:
    """A reference from any accepted form: one of the three classes, or a mask as array, tensor or PIL image.

    Raises:
        TypeError: it is of another type.
        ValueError: as `MaskRef`.
    """
    if isinstance(value, MaskRef | BoxRef | PointRef):
        return value
    if isinstance(value, Tensor):
        value = (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy()
    elif isinstance(value, Image.Image):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"a reference is of type {type(value).__name__}; expected a mask (H, W) bool, BoxRef((x0, y0, x1, y1)) or "
            "PointRef((x, y))"
        )
    return MaskRef(value)


def as_references(values: object) -> list[Reference]:
    """The references of one prompt from None, or a list, tuple or stack (R, H, W) of what `as_reference` accepts.

    Raises:
        TypeError: it is no list; and as `as_reference`.
        ValueError: as `as_reference`.
    """
    if values is None:
        return []
    single = isinstance(values, str | bytes | dict | Image.Image) or getattr(values, "ndim", 3) != 3
    if single or not isinstance(values, Iterable):
        raise TypeError(
            f"references are of type {type(values).__name__}; expected a list with one reference for each <mask-ref>, "
            "for example references=[mask]"
        )
    return [as_reference(value) for value in values]
