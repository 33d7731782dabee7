"""Silhouettes of the objects as exact, antialiased patches of any size."""

from dataclasses import dataclass

import cv2
import numpy as np

from maskselect.scenes.figures import FIGURES
from maskselect.scenes.spec import SceneObject
from maskselect.scenes.strokes import Drawing, Polygon
from maskselect.scenes.things import THINGS

DRAWINGS = {
    category: [sketch.finish(round=category == "ball") for sketch in sketches]
    for category, sketches in (FIGURES | THINGS).items()
}

ROTATION_LIMITS = {
    "circle": 180.0, "square": 13.0, "triangle": 20.0, "star": 30.0, "ring": 180.0, "cross": 12.0, "diamond": 10.0,
    "heart": 20.0, "mug": 10.0, "bottle": 12.0, "ball": 180.0, "book": 14.0, "key": 180.0, "leaf": 180.0,
    "fish": 25.0, "house": 7.0, "car": 8.0, "tree": 6.0, "chair": 7.0, "lamp": 7.0,
}  # fmt: skip
"""Largest rotation in degrees, in both directions. Squares and diamonds stay clearly different."""

ASPECT_JITTER = {
    "circle": 0.0, "square": 0.03, "triangle": 0.15, "star": 0.03, "ring": 0.0, "cross": 0.04, "diamond": 0.04,
    "heart": 0.1, "mug": 0.15, "bottle": 0.18, "ball": 0.0, "book": 0.12, "key": 0.12, "leaf": 0.18, "fish": 0.15,
    "house": 0.15, "car": 0.12, "tree": 0.15, "chair": 0.12, "lamp": 0.12,
}  # fmt: skip

SUPERSAMPLE = 2
_SHIFT = 4


@dataclass(frozen=True)
class Patch:
    """A silhouette on a small canvas.

    Attributes:
        left, top: position of the canvas in the picture, pixels; may be negative.
        fine: (h * SUPERSAMPLE, w * SUPERSAMPLE) uint8 coverage.
        alpha: (h, w) uint8 coverage.
    """

    left: int
    top: int
    fine: np.ndarray
    alpha: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Pixels that are at least half covered, (h, w) bool."""
        return self.alpha >= 128


def drawing_of(thing: SceneObject) -> Drawing:
    """The drawing of an object's category and variant."""
    choices = DRAWINGS[thing.category]
    return choices[thing.variant % len(choices)]


class Placement:
    """Maps unit coordinates of a drawing to picture pixels for one object. Odd seeds mirror it left to right."""

    def __init__(self, thing: SceneObject) -> None:
        angle = np.radians(thing.rotation)
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        width, height = thing.extent_wh
        flip = -1.0 if thing.seed & 1 else 1.0
        # A counter-clockwise rotation of row vectors, with y down.
        self.matrix = np.array([[width * flip * cos, -width * flip * sin], [height * sin, height * cos]])
        outline = drawing_of(thing).outline
        corners = np.concatenate([polygon for solid, polygon in outline if solid]) @ self.matrix
        low, high = corners.min(axis=0), corners.max(axis=0)
        self.shift = np.array(thing.centre_xy) - (low + high) / 2
        self.low, self.high = low + self.shift, high + self.shift

    def __call__(self, polygon: Polygon) -> Polygon:
        """Unit coordinates to picture coordinates, (N, 2) to (N, 2)."""
        return polygon @ self.matrix + self.shift


def rotated_box(thing: SceneObject) -> tuple[float, float]:
    """Width and height in pixels of the silhouette's box after rotation."""
    place = Placement(thing)
    return float(place.high[0] - place.low[0]), float(place.high[1] - place.low[1])


def to_fixed(polygon: Polygon, left: int, top: int) -> np.ndarray:
    """Picture coordinates to the fixed-point coordinates of a supersampled patch, (N, 1, 2) int32."""
    # Pixel k covers [k, k + 1), but OpenCV has integer coordinates at pixel centres: subtract one half.
    local = (polygon - [left, top]) * SUPERSAMPLE - 0.5
    return np.round(local * (1 << _SHIFT)).astype(np.int32).reshape(-1, 1, 2)


def fill(canvas: np.ndarray, polygon: Polygon, left: int, top: int, value: int | tuple[int, ...]) -> None:
    """Fill a polygon in picture coordinates on a supersampled patch, in place."""
    cv2.fillPoly(canvas, [to_fixed(polygon, left, top)], value, cv2.LINE_AA, _SHIFT)


def trace(canvas: np.ndarray, line: Polygon, left: int, top: int, value: tuple[int, ...], width: float) -> None:
    """Draw a polyline in picture coordinates on a supersampled patch, in place; width in picture pixels."""
    thickness = max(1, round(width * SUPERSAMPLE))
    cv2.polylines(canvas, [to_fixed(line, left, top)], False, value, thickness, cv2.LINE_AA, _SHIFT)


def silhouette(thing: SceneObject, place: Placement | None = None) -> Patch:
    """The whole silhouette of an object, including hidden parts."""
    place = place or Placement(thing)
    left, top = (int(np.floor(value)) - 1 for value in place.low)
    right, bottom = (int(np.ceil(value)) + 1 for value in place.high)
    fine = np.zeros(((bottom - top) * SUPERSAMPLE, (right - left) * SUPERSAMPLE), dtype=np.uint8)
    for solid, polygon in drawing_of(thing).outline:
        fill(fine, place(polygon), left, top, 255 if solid else 0)
    alpha = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return Patch(left, top, fine, alpha)
