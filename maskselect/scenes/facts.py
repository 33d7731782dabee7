"""The facts of a scene: measurements of its visible masks, and predicates with dead zones over them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from scipy.spatial import cKDTree

from maskselect.scenes.spec import CATEGORIES, COLOURS, RELATIONS, SIZES, TEXTURES, Scene

Verdict = tuple[int, int]
"""(certain, possible): two bit sets over objects, bit k for object k. Possible contains certain; an object that is only
possible is in a dead zone. Conjunctions work on the pairs, so that a clear "no" by one predicate decides."""

SIDES = ("left", "right", "top", "bottom")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
EXTREMES = ("leftmost", "rightmost", "topmost", "bottommost", "largest", "smallest")
NEAR, FAR = 0.09, 0.18  # shares of the image's longer side
TOUCHING_PX, APART_PX = 2.0, 6.0  # at 256 px


@dataclass(frozen=True, eq=False)
class SceneFacts:
    """The measured facts of a scene with N objects.

    Attributes:
        image_size: (H, W).
        category, colour, texture, size: (N,) uint8, indices into CATEGORIES, COLOURS, TEXTURES, SIZES.
        area: (N,) int32, visible pixels.
        centroid_xy: (N, 2) float32, pixels, of the visible mask.
        box_xyxy: (N, 4) int32, of the visible mask, right and bottom exclusive.
        gap: (N, N) float32, least distance between pixel centres of two visible masks (neighbours: 1), 0 on the
            diagonal. Beyond FAR of the longer side it is the distance between the boxes.
        relations: (R, 3) int8, (index into RELATIONS, subject, object).
    """

    image_size: tuple[int, int]
    category: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    size: np.ndarray
    area: np.ndarray
    centroid_xy: np.ndarray
    box_xyxy: np.ndarray
    gap: np.ndarray
    relations: np.ndarray

    @classmethod
    def measure(cls, scene: Scene, index: np.ndarray) -> "SceneFacts":
        """Measure a scene.

        Args:
            scene: with its objects and relations.
            index: (H, W) uint8, k + 1 where object k is visible.

        Raises:
            ValueError: an object has no visible pixel.
        """
        objects = scene.objects
        area, centroid = _areas(index, len(objects))
        if objects and not area.all():
            raise ValueError(f"scene {scene.id}: object {int(np.argmin(area))} has no visible pixel")
        outlines = _outlines(index, len(objects))
        box = np.array([(*p.min(0), *(p.max(0) + 1)) for p in outlines], np.int32).reshape(-1, 4)
        relations = [(RELATIONS.index(name), a, b) for name, a, b in scene.relations]
        return cls(
            image_size=(index.shape[0], index.shape[1]),
            category=np.array([CATEGORIES.index(o.category) for o in objects], np.uint8),
            colour=np.array([COLOURS.index(o.colour) for o in objects], np.uint8),
            texture=np.array([TEXTURES.index(o.texture) for o in objects], np.uint8),
            size=np.array([SIZES.index(o.size) for o in objects], np.uint8),
            area=area,
            centroid_xy=centroid,
            box_xyxy=box,
            gap=_gaps(outlines, box, FAR * max(index.shape)),
            relations=np.array(relations, np.int8).reshape(-1, 3),
        )

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.category)

    def words(self, k: int) -> tuple[str, str, str, str]:
        """Category, colour, texture and size of object `k`."""
        return CATEGORIES[self.category[k]], COLOURS[self.colour[k]], TEXTURES[self.texture[k]], SIZES[self.size[k]]

    def judge(self) -> "Judge":
        """The predicates over the scene."""
        return Judge(self)


class JudgedFacts(Protocol):
    """Facts that prompts can be drawn from: of a scene, or of a clip."""

    @property
    def count(self) -> int:
        """Number of objects."""
        ...

    def judge(self) -> "Judge":
        """The predicates over the facts."""
        ...


def _areas(index: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Visible areas (N,) int32 and centroids (N, 2) float32."""
    flat = np.flatnonzero(index)
    labels = index.ravel()[flat]
    y, x = np.divmod(flat, index.shape[1])
    area = np.bincount(labels, minlength=count + 1)[1 : count + 1]
    sums = [np.bincount(labels, weights=v, minlength=count + 1)[1 : count + 1] for v in (x, y)]
    return area.astype(np.int32), (np.stack(sums, 1) / np.maximum(area, 1)[:, None]).astype(np.float32)


def _outlines(index: np.ndarray, count: int) -> list[np.ndarray]:
    """For each object x, y of its pixels at the image's edge or beside another label, (P, 2) int64."""
    padded = np.pad(index, 1)
    edge = np.zeros(index.shape, bool)
    for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        edge |= neighbour != index
    edge &= index > 0
    flat = np.flatnonzero(edge)
    labels = index.ravel()[flat]
    order = np.argsort(labels, kind="stable")
    y, x = np.divmod(flat[order], index.shape[1])
    starts = np.searchsorted(labels[order], np.arange(1, count + 2))
    points = np.stack([x, y], 1)
    return [points[a:b] for a, b in pairwise(starts)]


def _gaps(outlines: list[np.ndarray], box: np.ndarray, limit: float) -> np.ndarray:
    """(N, N) float32, see SceneFacts.gap. Boxes further apart than `limit` give the distance between the boxes."""
    low, high = box[:, :2], box[:, 2:] - 1
    apart = np.maximum(np.maximum(low[:, None] - high[None], low[None] - high[:, None]), 0)
    gap = np.hypot(apart[..., 0], apart[..., 1]).astype(np.float32)
    for i in range(len(outlines)):
        for j in range(i):
            if gap[i, j] <= limit:
                gap[i, j] = gap[j, i] = _least_distance(outlines[i], outlines[j])
    return gap


def _least_distance(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) * len(b) > 250_000:  # the product would not fit in the cache
        return float(cKDTree(a).query(b)[0].min())
    a, b = a.astype(np.float64), b.astype(np.float64)
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2.0 * (a @ b.T)
    return float(np.sqrt(max(squared.min(), 0.0)))


def both(a: Verdict, b: Verdict) -> Verdict:
    """Conjunction."""
    return a[0] & b[0], a[1] & b[1]


def either(a: Verdict, b: Verdict) -> Verdict:
    """Disjunction."""
    return a[0] | b[0], a[1] | b[1]


def bits(members: int) -> Iterator[int]:
    """Indices of the set bits, ascending."""
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low


class Judge:
    """Evaluates predicates over one scene to `Verdict` pairs, with plain Python numbers and a cache for speed."""

    def __init__(self, facts: SceneFacts) -> None:
        self.facts = facts
        self.count = facts.count
        self.all = (1 << facts.count) - 1
        self.words = [facts.words(k) for k in range(facts.count)]
        self._attribute: dict[str, int] = {}
        for k, words in enumerate(self.words):
            for word in words:
                self._attribute[word] = self._attribute.get(word, 0) | 1 << k
        h, w = facts.image_size
        self._xy = [(float(x), float(y)) for x, y in facts.centroid_xy]
        self._share = [(x / w, y / h) for x, y in self._xy]
        self._area = [int(a) for a in facts.area]
        self._gap = facts.gap.tolist()
        self._box = facts.box_xyxy.tolist()
        self._long = max(h, w)
        self._made = {(RELATIONS[r], a, b) for r, a, b in facts.relations.tolist()}
        self._cache: dict[tuple[str, int, int], Verdict] = {}

    def attribute(self, word: str) -> Verdict:
        """The objects of a category, colour, texture or size; always certain in a scene."""
        members = self._attribute.get(word, 0)
        return members, members

    def negate(self, verdict: Verdict) -> Verdict:
        """Negation within the scene."""
        return self.all & ~verdict[1], self.all & ~verdict[0]

    def position(self, word: str) -> Verdict:
        """The objects at a position, by their visible centroid.

        Args:
            word: one of SIDES (0.44 / 0.56 of the side), "middle" (both within 0.34..0.66 yes, any outside 0.28..0.72
                no), one of CORNERS (below 0.34 on both yes, above 0.42 on any no), or "corner": any of the four.
        """
        if word == "corner":
            verdict = (0, 0)
            for corner in CORNERS:
                verdict = either(verdict, self.position(corner))
            return verdict
        return self._over("at " + word, -1, -1, lambda k: _placed(word, *self._share[k]))

    def relation(self, word: str, anchor: int, other: int = -1) -> Verdict:
        """The objects in a relation to object `anchor` (for "between" also to `other`), without the anchors.

        "left of", "right of", "above", "below": centroids more than 3.5 % of the side apart. "near": gap at most 9 %
        of the long side yes, at least 18 % no. "between": projection within 0.2..0.8 of the segment and closer to it
        than a quarter of its length yes; outside 0.1..0.9 or further than 0.4 no. "larger", "smaller": visible area by
        1.35. "same colour", "same shape", "same texture", "different colour": exact. "on", "inside", "behind" and
        their inverses "under", "containing", "in front of": as intended by the layout; pairs that only look so are in
        the dead zone. "touching": intended, or gap at most 2 px at 256 px, yes; more than 6 px no.
        """
        skip = 1 << anchor | (1 << other if other >= 0 else 0)
        yes, maybe = self._over(word, anchor, other, lambda k: self._relates(word, k, anchor, other))
        return yes & ~skip, maybe & ~skip

    def extreme(self, word: str, among: int) -> Verdict:
        """The extreme object in a bit set; all are in the dead zone if it is not clear.

        Args:
            word: one of EXTREMES. The second must be 4 % of the side away, or differ by a factor of 1.25 in visible
                area.
            among: bit set; an empty one gives an empty verdict.
        """
        members = list(bits(among))
        if not members:
            return 0, 0
        if len(members) == 1:
            return among, among
        axis, sign = {"left": (0, 1), "righ": (0, -1), "topm": (1, 1), "bott": (1, -1)}.get(word[:4], (2, 1))
        if axis < 2:
            ranked = sorted((sign * self._share[k][axis], k) for k in members)
            clear = ranked[1][0] - ranked[0][0] >= 0.04
        else:
            ranked = sorted(((-1 if word == "largest" else 1) * self._area[k], k) for k in members)
            a, b = abs(ranked[0][0]), abs(ranked[1][0])
            clear = max(a, b) >= 1.25 * min(a, b)
        winner = 1 << ranked[0][1]
        return (winner, winner) if clear else (0, among)

    def _over(self, word: str, a: int, b: int, test: Callable[[int], bool | None]) -> Verdict:
        verdict = self._cache.get((word, a, b))
        if verdict is None:
            yes = maybe = 0
            for k in range(self.count):
                if k in (a, b):
                    continue
                answer = test(k)
                yes |= (answer is True) << k
                maybe |= (answer is not False) << k
            verdict = self._cache[word, a, b] = (yes, maybe)
        return verdict

    def _relates(self, word: str, k: int, anchor: int, other: int) -> bool | None:
        if word in ("left of", "right of", "above", "below"):
            axis = 0 if word in ("left of", "right of") else 1
            offset = self._share[k][axis] - self._share[anchor][axis]
            return _zone(offset if word in ("right of", "below") else -offset, 0.035, -0.035)
        if word == "near":
            return _zone(-self._gap[k][anchor] / self._long, -NEAR, -FAR, edge=True)
        if word == "between":
            return _between(self._xy[k], self._xy[anchor], self._xy[other])
        if word in ("larger", "smaller"):
            ratio = self._area[k] / self._area[anchor]
            return _zone(ratio if word == "larger" else 1 / ratio, 1.35, 1 / 1.35, edge=True)
        if word.startswith(("same", "different")):
            column = {"shape": 0, "colour": 1, "texture": 2}[word.split()[1]]
            return (self.words[k][column] == self.words[anchor][column]) == word.startswith("same")
        inverse = {"under": "on", "containing": "inside", "in front of": "behind"}.get(word)
        return self._interacts(inverse, anchor, k) if inverse else self._interacts(word, k, anchor)

    def _interacts(self, word: str, subject: int, target: int) -> bool | None:
        if (word, subject, target) in self._made:
            return True
        gap = self._gap[subject][target] * 256 / self._long
        if word == "touching":
            if (word, target, subject) in self._made or gap <= TOUCHING_PX:
                return True
            return None if gap <= APART_PX else False
        if (word, target, subject) in self._made:
            return False  # the other relations are not symmetric
        if word == "inside":
            return None if _overlap(self._box[subject], self._box[target]) > 0.5 else False
        # An accidental overlap or contact may look like "on" or "behind".
        return None if gap <= APART_PX else False


def _zone(value: float, yes: float, no: float, edge: bool = False) -> bool | None:
    """True above `yes`, False below `no`, None between; with `edge` the limits themselves are clear."""
    if value > yes or (edge and value == yes):
        return True
    return False if value < no or (edge and value == no) else None


def _placed(word: str, x: float, y: float) -> bool | None:
    if word in SIDES:
        value = x if word in ("left", "right") else y
        return _zone(0.5 - value if word in ("left", "top") else value - 0.5, 0.06, -0.06)
    if word == "middle":
        if max(abs(x - 0.5), abs(y - 0.5)) <= 0.16:
            return True
        return False if max(abs(x - 0.5), abs(y - 0.5)) > 0.22 else None
    vertical, horizontal = word.split()
    worst = max(x if horizontal == "left" else 1 - x, y if vertical == "top" else 1 - y)
    return _zone(-worst, -0.34, -0.42)


def _between(point: tuple[float, float], a: tuple[float, float], b: tuple[float, float]) -> bool | None:
    dx, dy = b[0] - a[0], b[1] - a[1]
    squared = dx * dx + dy * dy
    if squared == 0.0:
        return None
    px, py = point[0] - a[0], point[1] - a[1]
    along, across = (px * dx + py * dy) / squared, abs(px * dy - py * dx) / squared  # both as shares of the length
    if 0.2 <= along <= 0.8 and across < 0.25:
        return True
    return False if not 0.1 <= along <= 0.9 or across > 0.4 else None


def _overlap(inner: list[int], outer: list[int]) -> float:
    """The share of box `inner` inside box `outer`."""
    w = min(inner[2], outer[2]) - max(inner[0], outer[0])
    h = min(inner[3], outer[3]) - max(inner[1], outer[1])
    return max(w, 0) * max(h, 0) / ((inner[2] - inner[0]) * (inner[3] - inner[1]))
