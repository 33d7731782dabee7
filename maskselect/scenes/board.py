"""The board for a layout's silhouettes: exact overlaps, gaps and contacts in whole pixels."""

from dataclasses import replace

import cv2
import numpy as np

from maskselect.scenes.shapes import silhouette
from maskselect.scenes.spec import SceneObject

_EDGE = 2  # pixels kept free at the border of the picture


class Piece:
    """An object with its silhouette. It moves by whole pixels, so that the silhouette does not change.

    Attributes:
        mask: (h, w) bool without empty margins.
        x, y: upper left corner of the mask in the picture.
    """

    def __init__(self, thing: SceneObject) -> None:
        patch = silhouette(thing)
        mask = patch.mask
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        self.mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        self.height, self.width = self.mask.shape
        self.area = int(self.mask.sum())
        self.x, self.y = patch.left + int(columns[0]), patch.top + int(rows[0])
        self.thing = thing

    def move_to(self, x: int, y: int) -> None:
        """Move the upper left corner of the mask, and the object, to (x, y)."""
        centre = (self.thing.centre_xy[0] + x - self.x, self.thing.centre_xy[1] + y - self.y)
        self.thing = replace(self.thing, centre_xy=centre)
        self.x, self.y = x, y


def _overlap(first: Piece, second: Piece, x: int, y: int) -> int:
    """Number of pixels that `first` at (x, y) shares with `second`."""
    left, top = max(x, second.x), max(y, second.y)
    right, bottom = min(x + first.width, second.x + second.width), min(y + first.height, second.y + second.height)
    if left >= right or top >= bottom:
        return 0
    one = first.mask[top - y : bottom - y, left - x : right - x]
    two = second.mask[top - second.y : bottom - second.y, left - second.x : right - second.x]
    return int(np.count_nonzero(one & two))


def _rest_y(subject: Piece, host: Piece, x: int) -> int | None:
    """The y at which the subject, lowered at x, touches the host; None if it misses the host."""
    left, right = max(x, host.x), min(x + subject.width, host.x + host.width)
    if left >= right:
        return None
    below = host.mask[:, left - host.x : right - host.x]
    above = subject.mask[::-1, left - x : right - x]
    both = below.any(axis=0) & above.any(axis=0)
    if not both.any():
        return None
    host_top = host.y + below.argmax(axis=0)
    subject_bottom = subject.height - above.argmax(axis=0)
    return int((host_top - subject_bottom)[both].min())


def _beside_x(subject: Piece, host: Piece, y: int, on_right: bool) -> int | None:
    """The x at which the subject at height y touches the host's side; None if it misses the host."""
    top, bottom = max(y, host.y), min(y + subject.height, host.y + host.height)
    if top >= bottom:
        return None
    theirs, ours = host.mask[top - host.y : bottom - host.y], subject.mask[top - y : bottom - y]
    both = theirs.any(axis=1) & ours.any(axis=1)
    if not both.any():
        return None
    if on_right:
        edge = host.x + host.width - theirs[:, ::-1].argmax(axis=1)
        return int((edge - ours.argmax(axis=1))[both].max())
    edge = host.x + theirs.argmax(axis=1)
    return int((edge - (subject.width - ours[:, ::-1].argmax(axis=1)))[both].min())


def _room_inside(host: Piece) -> np.ndarray:
    """The area for an object inside the host, (h, w) bool: the hole of a ring, else the host's surface."""
    if host.thing.category != "ring":
        return host.mask
    filled = np.zeros(host.mask.shape, np.uint8)
    contours, _ = cv2.findContours(host.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(filled, contours, -1, 1, -1)
    return (filled > 0) & ~host.mask


class Board:
    """The placed pieces, and the pixels that each occupies with the gap around it (bit k for piece k)."""

    def __init__(self, size: tuple[int, int], gap: int) -> None:
        self.size, self.gap = size, gap
        self.taken = np.zeros(size, np.uint16)
        self.pieces: list[Piece] = []

    def _fits(self, piece: Piece, x: int, y: int, beside: int | None = None) -> bool:
        height, width = self.size
        if x < _EDGE or y < _EDGE or x + piece.width > width - _EDGE or y + piece.height > height - _EDGE:
            return False
        owners = self.taken[y : y + piece.height, x : x + piece.width]
        if beside is not None:
            owners = owners & np.uint16(0xFFFF ^ (1 << beside))
        return not (owners * piece.mask).any()

    def _put(self, piece: Piece, x: int, y: int) -> int:
        piece.move_to(x, y)
        gap = self.gap
        padded = cv2.copyMakeBorder(piece.mask.astype(np.uint8), gap, gap, gap, gap, cv2.BORDER_CONSTANT)
        padded = cv2.dilate(padded, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1)))
        top, left = max(y - gap, 0), max(x - gap, 0)
        area = self.taken[top : y + piece.height + gap, left : x + piece.width + gap]
        shift_y, shift_x = top - (y - gap), left - (x - gap)
        part = padded[shift_y : shift_y + area.shape[0], shift_x : shift_x + area.shape[1]]
        area |= part.astype(np.uint16) << np.uint16(len(self.pieces))
        self.pieces.append(piece)
        return len(self.pieces) - 1

    def place_freely(self, piece: Piece, rng: np.random.Generator, tries: int) -> int | None:
        """Place a piece with a gap to all others; return its number, or None if no place was found."""
        room_x = self.size[1] - 2 * _EDGE - piece.width
        room_y = self.size[0] - 2 * _EDGE - piece.height
        if room_x < 0 or room_y < 0:
            return None
        for share_x, share_y in rng.random((tries, 2)):
            x, y = _EDGE + round(share_x * room_x), _EDGE + round(share_y * room_y)
            if self._fits(piece, x, y):
                return self._put(piece, x, y)
        return None

    def place_related(self, subject: Piece, relation: str, host_at: int, rng: np.random.Generator) -> bool:
        """Place the subject in a relation to a placed piece; return False if there is no room."""
        host = self.pieces[host_at]
        propose = {"on": self._upon, "inside": self._within, "touching": self._beside, "behind": self._behind}[relation]
        for _ in range(12 if relation != "inside" else 40):
            spot = propose(subject, host, rng)
            if spot is not None and self._fits(subject, *spot, beside=host_at):
                self._put(subject, *spot)
                return True
        return False

    @staticmethod
    def _upon(subject: Piece, host: Piece, rng: np.random.Generator) -> tuple[int, int] | None:
        slack = host.width - subject.width
        if slack < 0:
            return None
        rounded = host.thing.category in ("circle", "ball", "cross", "bottle", "car")
        share = rng.uniform(0.4, 0.6) if rounded else rng.random()
        x = host.x + round(share * slack)
        y = _rest_y(subject, host, x)
        # It must stand on the top, not at a side: the bottom of its box must be near the host's top.
        if y is None or not -1 <= y + subject.height - host.y <= max(2, round(0.12 * host.height)):
            return None
        return x, y

    @staticmethod
    def _within(subject: Piece, host: Piece, rng: np.random.Generator) -> tuple[int, int] | None:
        slack_x, slack_y = host.width - subject.width, host.height - subject.height
        if slack_x <= 2 or slack_y <= 2 or subject.area > 0.42 * host.area:
            return None
        along, down = rng.beta(2.5, 2.5, 2)
        dx, dy = round(along * slack_x), round(down * slack_y)
        room = _room_inside(host)[dy : dy + subject.height, dx : dx + subject.width]
        return (host.x + dx, host.y + dy) if not (subject.mask & ~room).any() else None

    @staticmethod
    def _beside(subject: Piece, host: Piece, rng: np.random.Generator) -> tuple[int, int] | None:
        low, high = host.y - subject.height // 2, host.y + host.height - subject.height // 2
        y = int(rng.integers(low, high + 1)) if rng.random() < 0.5 else host.y + host.height - subject.height
        on_right = bool(rng.random() < 0.5)
        x = _beside_x(subject, host, y, on_right)
        return None if x is None else (x, y)

    @staticmethod
    def _behind(subject: Piece, host: Piece, rng: np.random.Generator) -> tuple[int, int] | None:
        angle = rng.uniform(0, 2 * np.pi)
        start_x, start_y = host.x + (host.width - subject.width) / 2, host.y + (host.height - subject.height) / 2
        far = (max(host.width, host.height) + max(subject.width, subject.height)) / 2
        aim = rng.uniform(0.18, 0.38)
        near, away = 0.0, far
        for _ in range(9):  # bisection: the overlap mostly decreases with the distance
            middle = (near + away) / 2
            x, y = round(start_x + middle * np.cos(angle)), round(start_y + middle * np.sin(angle))
            share = _overlap(subject, host, x, y) / subject.area
            if 0.15 <= share <= 0.4 and abs(share - aim) < 0.06:
                return x, y
            near, away = (middle, away) if share > aim else (near, middle)
        return (x, y) if 0.15 <= share <= 0.4 else None
