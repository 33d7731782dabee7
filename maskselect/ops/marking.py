"""Regions of a picture made visible for a network: outlines in plain colours, and crops."""

from collections.abc import Sequence

import cv2
import numpy as np

from maskselect.ops.masks import resize_smooth

Colour = tuple[int, int, int]
Mark = tuple[np.ndarray, Colour, int]
"""A mask (h, w) bool, the RGB colour of its outline, and the width of the outline as a multiple of the usual one."""
Window = tuple[int, int, int, int]

_FINEST = 2
"""Width of an outline in pixels in a small picture."""


def scaled(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 with a longer side of `side` pixels, in the same aspect."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def scaled_down(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 with a longer side of at most `side` pixels; the image itself if it is small enough."""
    return image if max(image.shape[:2]) <= side else scaled(image, side)


def outlined(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """A copy of an image (H, W, 3) uint8 with outlined masks; the later ones lie above.

    The masks may be of a larger version of the image.
    """
    out = np.ascontiguousarray(image).copy()
    line = max(_FINEST, round(max(image.shape[:2]) / 150))
    for mask, colour, width in marks:
        shown = resize_smooth(np.ascontiguousarray(mask), (image.shape[0], image.shape[1])).astype(np.uint8)
        contours, _ = cv2.findContours(shown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, colour, width * line)
    return out


def window_of(mask: np.ndarray, margin: float) -> Window:
    """The box of a mask with a margin: x0, y0, x1, y1 in pixels, right and bottom exclusive, inside the picture.

    Args:
        mask: (H, W) bool, not empty.
        margin: on each side, as a share of the longer side of the box.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    around = round(margin * max(x1 - x0, y1 - y0))
    height, width = mask.shape
    return max(0, int(x0) - around), max(0, int(y0) - around), min(width, x1 + around), min(height, y1 + around)


def crop(image: np.ndarray, window: Window) -> np.ndarray:
    """The part of an image (H, W, ...) in a window, as a contiguous copy."""
    x0, y0, x1, y1 = window
    return np.ascontiguousarray(image[y0:y1, x0:x1])


def isolated(image: np.ndarray, mask: np.ndarray, grey: int = 128) -> np.ndarray:
    """The crop of a mask, with all that is outside of the mask in grey: (H, W, 3) uint8 and (H, W) bool, not empty."""
    window = window_of(mask, 0.0)
    part, inside = crop(image, window), crop(mask, window)
    part[~inside] = grey
    return part
