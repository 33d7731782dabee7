"""Outlines of masks along the edges of pixels, for formats that store polygons.

The pixel in column x and row y covers the square from (x, y) to (x + 1, y + 1), as in COCO. So a single pixel has an
outline of four corners, and pycocotools draws an outline as exactly the mask.
"""

import cv2
import numpy as np

Part = list[np.ndarray]
"""A connected part of a mask: the outer ring, then a ring for each hole, each (P, 2) int32 or float32 corners x, y."""


_FEW = 16  # corners that a person can edit


def outlines(mask: np.ndarray, tolerance: float = 0.0) -> list[Part]:
    """The parts of a mask, from its top to its bottom. Pixels that share a corner belong to one part.

    Args:
        mask: (H, W) bool.
        tolerance: 0 follows every step exactly. A greater one saves corners: the ring goes through the middles of the
            edges and is simplified by `cv2.approxPolyDP` up to this distance in pixels. Up to 0.3 pycocotools still
            draws the same mask. A ring stays exact if it has few corners, or would not lose half of them.
    """
    if not mask.any():
        return []
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # cv2 puts corners on pixels. Each pixel becomes four, whose numbers 2x and 2x + 1 stand for the edges x and x + 1.
    large = inside.view(np.uint8).repeat(2, 0).repeat(2, 1)
    found, hierarchy = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    origin = np.array([columns[0], rows[0]], np.int32)
    parts: dict[int, Part] = {place: [] for place, (*_, parent) in enumerate(hierarchy[0]) if parent < 0}
    for place in [*parts, *(place for place in range(len(found)) if place not in parts)]:
        ring = _corners((found[place][:, 0] + 1) // 2 + origin)
        parent = int(hierarchy[0, place, 3])
        parts[place if parent < 0 else parent].append(_simplified(ring, tolerance))
    return sorted(parts.values(), key=lambda part: (float(part[0][:, 1].min()), float(part[0][:, 0].min())))


def joined(rings: Part) -> np.ndarray:
    """One ring for several: the first, and cuts from it to the others, paths of no width there and back.

    Filled by the even-odd rule, or by pycocotools, the result covers the same pixels as all rings together. Programs
    that also draw the outline show a cut as a line.

    Args:
        rings: at least one ring (P, 2).
    """
    first, *others = rings
    if not others:
        return first
    from scipy.spatial import cKDTree  # noqa: PLC0415  slow to import, and most masks have one ring

    starts = [int(ring[:, 0].argmin()) for ring in others]
    tours = [np.concatenate([ring[at:], ring[: at + 1]]) for ring, at in zip(others, starts, strict=True)]
    places = cKDTree(first).query(np.array([tour[0] for tour in tours]))[1]
    pieces, at = [], 0
    for number in np.argsort(places, kind="stable"):
        pieces += [first[at : places[number] + 1], tours[number]]
        at = places[number]
    return np.concatenate([*pieces, first[at:]])


def _corners(ring: np.ndarray) -> np.ndarray:
    """The points of a ring of horizontal and vertical edges where it turns."""
    ring = ring[(ring != np.roll(ring, 1, 0)).any(1)]
    before, after = np.roll(ring, 1, 0), np.roll(ring, -1, 0)
    turns: np.ndarray = ~((before == ring) & (ring == after)).any(1)
    return ring[turns]


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    if tolerance <= 0 or len(ring) <= _FEW:
        return ring
    after = np.roll(ring, -1, 0)
    half = np.sign(after - ring) / 2  # the middles of the first and the last pixel of each edge
    middles = np.stack([ring + half, after - half], 1).reshape(-1, 2).astype(np.float32)
    fewer = cv2.approxPolyDP(middles, tolerance, True)[:, 0]
    return fewer if 2 < len(fewer) <= len(ring) / 2 else ring
