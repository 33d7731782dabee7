"""Building blocks of the drawings: polygons in free units, y down, and their collection."""

from dataclasses import dataclass, field

import numpy as np

Polygon = np.ndarray  # (N, 2) float64, x then y


@dataclass(frozen=True)
class Drawing:
    """A drawing of a category, in units where the silhouette's box is [-0.5, 0.5] x [-0.5, 0.5].

    Attributes:
        outline: in painting order; (True, polygon) adds to the silhouette, (False, polygon) cuts a hole into it.
        patches: (polygon, tone) areas inside the silhouette; for the tones see `materials.tone`.
        lines: (polyline, width) dark detail lines; width as a share of the box's longer side.
        aspect: natural width / height.
        round: shaded like a sphere.
    """

    outline: tuple[tuple[bool, Polygon], ...]
    patches: tuple[tuple[Polygon, str], ...] = ()
    lines: tuple[tuple[Polygon, float], ...] = ()
    aspect: float = 1.0
    round: bool = False


@dataclass
class Sketch:
    """Collects polygons in any units; `finish` makes a `Drawing` of them."""

    outline: list[tuple[bool, Polygon]] = field(default_factory=list)
    patches: list[tuple[Polygon, str]] = field(default_factory=list)
    lines: list[tuple[Polygon, float]] = field(default_factory=list)

    def add(self, *polygons: Polygon) -> "Sketch":
        """Add polygons to the silhouette."""
        self.outline += [(True, polygon) for polygon in polygons]
        return self

    def cut(self, *polygons: Polygon) -> "Sketch":
        """Cut holes into the polygons added so far."""
        self.outline += [(False, polygon) for polygon in polygons]
        return self

    def patch(self, tone: str, *polygons: Polygon) -> "Sketch":
        """Add areas in another tone."""
        self.patches += [(polygon, tone) for polygon in polygons]
        return self

    def line(self, width: float, *polylines: Polygon) -> "Sketch":
        """Add dark detail lines."""
        self.lines += [(polyline, width) for polyline in polylines]
        return self

    def finish(self, round: bool = False) -> Drawing:
        """Scale the polygons so that the silhouette fills the unit box."""
        corners = np.concatenate([polygon for solid, polygon in self.outline if solid])
        low, high = corners.min(axis=0), corners.max(axis=0)
        middle, extent = (low + high) / 2, high - low

        def unit(polygon: Polygon) -> Polygon:
            return (polygon - middle) / extent

        return Drawing(
            tuple((solid, unit(polygon)) for solid, polygon in self.outline),
            tuple((unit(polygon), tone) for polygon, tone in self.patches),
            tuple((unit(polyline), width) for polyline, width in self.lines),
            float(extent[0] / extent[1]),
            round,
        )


def points(*pairs: tuple[float, float]) -> Polygon:
    """A polygon from its corners."""
    return np.array(pairs, dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    """A rectangle."""
    return points((left, top), (right, top), (right, bottom), (left, bottom))


def oval(x: float, y: float, rx: float, ry: float | None = None, start: float = 0.0, stop: float = 360.0) -> Polygon:
    """An ellipse, or an arc from start to stop in degrees (clockwise on screen from the right)."""
    whole = abs(stop - start) >= 360.0
    angles = np.radians(np.linspace(start, stop, 49)[: 48 if whole else 49])
    return np.stack([x + rx * np.cos(angles), y + (rx if ry is None else ry) * np.sin(angles)], axis=1)


def round_box(left: float, top: float, right: float, bottom: float, radius: float) -> Polygon:
    """A rectangle with rounded corners."""
    centres = (
        (right - radius, bottom - radius, 0), (left + radius, bottom - radius, 90),
        (left + radius, top + radius, 180), (right - radius, top + radius, 270),
    )  # fmt: skip
    return np.concatenate([oval(x, y, radius, None, start, start + 90)[::6] for x, y, start in centres])


def spikes(count: int, inner: float, top: float = -90.0) -> Polygon:
    """A star polygon with `count` tips at radius 1 and notches at radius `inner`."""
    angles = np.radians(top + np.arange(2 * count) * 180.0 / count)
    radii = np.where(np.arange(2 * count) % 2 == 0, 1.0, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> Polygon:
    """A straight bar from one point to another."""
    start, end = np.array([x0, y0]), np.array([x1, y1])
    along = (end - start) / np.linalg.norm(end - start)
    across = np.array([-along[1], along[0]]) * width / 2
    return np.stack([start + across, end + across, end - across, start - across])


def turned(polygon: Polygon, degrees: float) -> Polygon:
    """A polygon turned about the origin, counter-clockwise."""
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return polygon @ matrix
