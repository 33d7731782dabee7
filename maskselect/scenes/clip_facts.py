"""The facts of a clip: measurements of its tracks and of the visible masks of all frames, and predicates over them.

`ClipJudge` has the predicates that one frame answers, as `facts.Judge`: they are certain only if they are in every
frame that shows the objects. It adds the predicates of motion and order, with dead zones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from maskselect.scenes.clip_drawing import ClipDrawing, windows
from maskselect.scenes.facts import Judge, SceneFacts, Verdict, bits
from maskselect.scenes.spec import CATEGORIES, COLOURS, SIZES, TEXTURES, Scene

DIRECTIONS: dict[str, tuple[float, float]] = {
    "moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1),
    "moves up left": (-1, -1), "moves up right": (1, -1), "moves down left": (-1, 1), "moves down right": (1, 1),
}  # fmt: skip
"""x and y of each direction, y down."""
STATES = ("still", "moves", "returns", "turns", "grows", "shrinks", "leaves", "enters", "appears", "hidden", "covers",
          "emerges")  # fmt: skip
MOTION_RELATIONS = ("same direction", "opposite direction", "faster", "slower", "hidden by", "passes in front of")
ORDER_RELATIONS = ("enters before", "enters after", "leaves before", "leaves after")
MOTION_EXTREMES = ("fastest", "slowest", "moves furthest")
ORDER_EXTREMES = ("appears last", "enters first", "enters last", "leaves first", "leaves last")

MOVED, STOOD = 0.12, 0.015  # length of the path as shares of the shorter side
RATIO = 1.4  # of speeds and lengths that differ clearly
HIDDEN, FREE = 0.35, 0.05  # shares of the silhouette
ORDER_GAP = 0.12  # of the number of frames, between events of clear order


@dataclass(frozen=True, eq=False)
class ClipFacts:
    """The measured facts of a clip with N objects and T frames.

    Attributes:
        image_size: (H, W).
        category, colour, texture, size: (N,) uint8, indices into the tables of `spec`. The size is that of the greatest
            extent; it is no fact of an object that grows or shrinks.
        centre_xy: (T, N, 2) float32, pixels, of the whole object; it may be outside of the picture.
        scale, turn: (T, N) float32, see `motion.Track`.
        whole, inside, area: (T, N) int32, pixels of the silhouette, of its part inside the picture, and visible ones.
        cover: (T, N, N) int32, pixels of the first object's silhouette where the second one is visible.
        centroid_xy: (T, N, 2) float32, pixels, of the visible mask; 0 without one.
        box_xyxy: (T, N, 4) int32, of the visible mask, right and bottom exclusive; 0 without one.
        gap: (T, N, N) float32, as in `SceneFacts`; 0 without a visible mask.
    """

    image_size: tuple[int, int]
    category: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    size: np.ndarray
    centre_xy: np.ndarray
    scale: np.ndarray
    turn: np.ndarray
    whole: np.ndarray
    inside: np.ndarray
    area: np.ndarray
    cover: np.ndarray
    centroid_xy: np.ndarray
    box_xyxy: np.ndarray
    gap: np.ndarray

    @classmethod
    def measure(cls, drawing: ClipDrawing) -> "ClipFacts":
        """Measure all frames of a clip, without drawing its pictures."""
        scene = drawing.scene
        frames, count = scene.frames, len(scene.objects)
        counts = np.zeros((4, frames, count), np.int32)
        cover = np.zeros((frames, count, count), np.int32)
        centroid, box = np.zeros((frames, count, 2), np.float32), np.zeros((frames, count, 4), np.int32)
        gap = np.zeros((frames, count, count), np.float32)
        for frame in range(frames):
            index = drawing.index(frame)
            for k in range(count):
                sprite = drawing.sprite(k, frame)
                there, here = windows(sprite, scene.image_size)
                owners = index[there][sprite.alpha[here] >= 128]
                shown = np.bincount(owners, minlength=count + 1)[1:]
                counts[:3, frame, k] = (sprite.alpha >= 128).sum(), len(owners), shown[k]
                cover[frame, k] = shown
                cover[frame, k, k] = 0
            seen = np.flatnonzero(counts[2, frame])
            table = np.zeros(count + 1, np.uint8)
            table[seen + 1] = np.arange(1, len(seen) + 1)
            objects = tuple(scene.objects[int(k)] for k in seen)
            part = Scene(scene.id, scene.split, scene.image_size, objects, (), scene.look, 0)
            facts = SceneFacts.measure(part, table[index])
            centroid[frame, seen], box[frame, seen] = facts.centroid_xy, facts.box_xyxy
            gap[frame][np.ix_(seen, seen)] = facts.gap
        return cls(
            image_size=scene.image_size,
            category=np.array([CATEGORIES.index(o.category) for o in scene.objects], np.uint8),
            colour=np.array([COLOURS.index(o.colour) for o in scene.objects], np.uint8),
            texture=np.array([TEXTURES.index(o.texture) for o in scene.objects], np.uint8),
            size=np.array([SIZES.index(o.size) for o in scene.objects], np.uint8),
            centre_xy=np.stack([track.centre_xy for track in scene.tracks], 1).astype(np.float32),
            scale=np.stack([track.scale for track in scene.tracks], 1).astype(np.float32),
            turn=np.stack([track.turn for track in scene.tracks], 1).astype(np.float32),
            whole=counts[0],
            inside=counts[1],
            area=counts[2],
            cover=cover,
            centroid_xy=centroid,
            box_xyxy=box,
            gap=gap,
        )

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.category)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.area)

    def words(self, k: int) -> tuple[str, str, str, str]:
        """Category, colour, texture and size of object `k`."""
        return CATEGORIES[self.category[k]], COLOURS[self.colour[k]], TEXTURES[self.texture[k]], SIZES[self.size[k]]

    def judge(self) -> "ClipJudge":
        """The predicates over the clip."""
        return ClipJudge(self)

    def reference_frame(self, k: int) -> int:
        """The frame on which a reference to object `k` is given: the first that shows half of its largest visible area.

        >>> facts = ClipFacts(*[np.zeros(1)] * 10, area=np.array([[0], [40], [90]]), **dict.fromkeys(
        ...     ("cover", "centroid_xy", "box_xyxy", "gap"), np.zeros(1)))
        >>> facts.reference_frame(0)
        2
        """
        return int(np.argmax(2 * self.area[:, k] >= self.area[:, k].max()))

    def at(self, frame: int) -> SceneFacts:
        """The facts of one frame. Objects without a visible pixel have no meaningful area, place or gap."""
        return SceneFacts(
            self.image_size,
            self.category,
            self.colour,
            self.texture,
            self.size,
            np.maximum(self.area[frame], 1),
            self.centroid_xy[frame],
            self.box_xyxy[frame] + np.array([0, 0, 1, 1], np.int32) * (self.area[frame] == 0)[:, None],
            self.gap[frame],
            np.zeros((0, 3), np.int8),
        )


class ClipJudge(Judge):
    """Evaluates predicates over a clip to `Verdict` pairs."""

    def __init__(self, facts: ClipFacts) -> None:
        super().__init__(facts.at(0))
        self.clip = facts
        self.frames = [(_bits_of(facts.area[t] > 0), Judge(facts.at(t))) for t in range(facts.frames)]
        self.motions = [_Motion(facts, k) for k in range(facts.count)]
        self._resized = _bits_of(np.ptp(facts.scale, axis=0) > 0)
        self._gap_frames = max(1, int(np.ceil(ORDER_GAP * facts.frames)))
        self._states: dict[tuple[str, int], Verdict] = {}

    def attribute(self, word: str) -> Verdict:
        """The objects of a category, colour, texture or size. An object that grows or shrinks has no certain size."""
        yes, possible = super().attribute(word)
        return (yes & ~self._resized, possible | self._resized) if word in SIZES else (yes, possible)

    def position(self, word: str) -> Verdict:
        """The objects that are at a position in all frames that show them; see `Judge.position`."""
        return self._in_all((visible, judge.position(word)) for visible, judge in self.frames)

    def relation(self, word: str, anchor: int, other: int = -1) -> Verdict:
        """The objects that are in a relation in all frames that show them and the anchors; see `Judge.relation`."""
        if word.startswith(("same", "different")):
            return self.frames[0][1].relation(word, anchor, other)
        needed = 1 << anchor | (1 << other if other >= 0 else 0)
        shown = [(visible, judge) for visible, judge in self.frames if visible & needed == needed]
        together = 0
        for visible, _ in shown:
            together |= visible
        yes, possible = self._in_all((visible, judge.relation(word, anchor, other)) for visible, judge in shown)
        return yes, (possible | ~together) & self.all & ~needed

    def extreme(self, word: str, among: int) -> Verdict:
        """The object that is the extreme of a bit set in all frames that show any of them; see `Judge.extreme`."""
        verdicts = {judge.extreme(word, among & seen) for seen, judge in self.frames if among & seen}
        if len(verdicts) == 1 and (verdict := verdicts.pop())[0] == verdict[1]:
            return verdict
        return 0, among

    def _in_all(self, verdicts: Iterator[tuple[int, Verdict]]) -> Verdict:
        yes, possible = self.all, 0
        for visible, (certain, maybe) in verdicts:
            yes &= certain | ~visible
            possible |= maybe & visible
        return yes & possible, possible

    # Motion and order.

    def state(self, word: str) -> Verdict:
        """The objects of a motion: one of STATES or DIRECTIONS."""
        if (word, -1) not in self._states:
            self._states[word, -1] = self._each(lambda k: self.motions[k].state(word), self.all)
        return self._states[word, -1]

    def motion_relation(self, word: str, anchor: int) -> Verdict | None:
        """The objects in a relation of MOTION_RELATIONS or ORDER_RELATIONS to `anchor`, without it.

        None if the anchor does not allow the relation, for example because it does not move.
        """
        base = self.motions[anchor]
        if word in ORDER_RELATIONS:
            event = word.split(maxsplit=1)[0]
            if not base.state(event):
                return None
        elif word.endswith("direction"):
            if base.angle is None:
                return None
        elif word in ("faster", "slower") and not base.state("moves"):
            return None
        if (word, anchor) not in self._states:
            others = self.all & ~(1 << anchor)
            self._states[word, anchor] = self._each(lambda k: self._relates_in_motion(word, k, anchor), others)
        return self._states[word, anchor]

    def motion_extreme(self, word: str, among: int) -> Verdict:
        """The extreme of a bit set: one of MOTION_EXTREMES or ORDER_EXTREMES; all are possible if it is not clear."""
        members, unclear = list(bits(among)), (0, among)
        if word == "appears last":
            values = {k: float(self.motions[k].first) for k in members}
            if any(self.motions[k].state("appears") is None for k in members):
                return unclear
            ranked = sorted(members, key=lambda k: -values[k])
            clear = len(ranked) > 1 and values[ranked[0]] - values[ranked[1]] >= self._gap_frames
            return (1 << ranked[0], 1 << ranked[0]) if clear else unclear
        event = word.split(maxsplit=1)[0] if word in ORDER_EXTREMES else "moves"
        states = {k: self.motions[k].state(event) for k in members}
        if None in states.values():
            return unclear
        members = [k for k in members if states[k]]
        if len(members) < 2:
            return (0, 0) if not members and word in ORDER_EXTREMES else unclear
        if word in ORDER_EXTREMES:
            times = [self.motions[k].first if event == "enters" else self.motions[k].last for k in members]
            sign = 1 if word.endswith("first") else -1
            ranked = sorted(range(len(members)), key=lambda place: sign * times[place])
            clear = abs(times[ranked[0]] - times[ranked[1]]) >= self._gap_frames
        else:
            sizes = [self.motions[k].length if word == "moves furthest" else self.motions[k].speed for k in members]
            ranked = sorted(range(len(members)), key=lambda place: sizes[place] * (1 if word == "slowest" else -1))
            first, second = sizes[ranked[0]], sizes[ranked[1]]
            clear = max(first, second) >= RATIO * min(first, second)
        winner = 1 << members[ranked[0]]
        return (winner, winner) if clear else unclear

    def _each(self, test: Callable[[int], bool | None], members: int) -> Verdict:
        yes = possible = 0
        for k in bits(members):
            answer = test(k)
            yes |= (answer is True) << k
            possible |= (answer is not False) << k
        return yes, possible

    def _relates_in_motion(self, word: str, k: int, anchor: int) -> bool | None:
        one, base = self.motions[k], self.motions[anchor]
        if word in ("faster", "slower"):
            if one.state("moves") is not True:
                return one.state("moves")
            ratio = one.speed / base.speed if word == "faster" else base.speed / one.speed
            return True if ratio >= RATIO else False if ratio <= 1 / RATIO else None
        if word.endswith("direction"):
            return one.follows(base.angle, word.startswith("opposite"))
        if word in ORDER_RELATIONS:
            event, when = word.split()
            if one.state(event) is not True:
                return one.state(event)
            gap = base.first - one.first if event == "enters" else base.last - one.last
            gap = gap if when == "before" else -gap
            return True if gap >= self._gap_frames else False if gap <= -self._gap_frames else None
        if word == "hidden by":
            return one.covered_by(anchor)
        covers = base.covered_by(k)
        return covers if covers is not True else one.state("moves") or None


class _Motion:
    """The motion of one object.

    Attributes:
        first, last: first and last frame that show a part of it.
        length: of its path inside the picture, as a share of the shorter side.
        speed: length per frame.
        angle: direction in degrees, 0 to the right and 90 down; None if it has no clear one.
    """

    def __init__(self, facts: ClipFacts, k: int) -> None:
        self.facts, self.k = facts, k
        shown, inside = np.flatnonzero(facts.area[:, k]), np.flatnonzero(facts.inside[:, k])
        self.first, self.last = (int(shown[0]), int(shown[-1])) if len(shown) else (0, 0)
        path = facts.centre_xy[inside, k].astype(np.float64) / min(facts.image_size)
        steps = np.hypot(*np.diff(path, axis=0).T) if len(path) > 1 else np.zeros(1)
        self.length, self.speed = float(steps.sum()), float(steps.mean())
        self.away = path[-1] - path[0] if len(path) else np.zeros(2)
        offsets = path - path[0] if len(path) else np.zeros((1, 2))
        self.reach = offsets[np.argmax(np.hypot(*offsets.T))]
        self.straight = self.length >= MOVED and float(np.hypot(*self.away)) >= 0.85 * self.length
        self.angle = _angle(self.away) if self.straight else None
        self.growth = float(facts.scale[-1, k] / facts.scale[0, k])
        self.turned = float(abs(facts.turn[-1, k] - facts.turn[0, k]))
        with np.errstate(divide="ignore", invalid="ignore"):
            enough = facts.inside[:, k] >= 0.5 * facts.whole[:, k]
            self._covers = (facts.cover[:, k] / facts.whole[:, k, None])[enough]  # (t, N)
        self._states: dict[str, bool | None] = {}

    def state(self, word: str) -> bool | None:
        """Whether a word of STATES or DIRECTIONS holds; None in the dead zone."""
        if word not in self._states:
            self._states[word] = self._direction(word) if word in DIRECTIONS else self._state(word)
        return self._states[word]

    def covered_by(self, other: int) -> bool | None:
        """Whether another object hides a good part of it in some frame."""
        share = float(self._covers[:, other].max(initial=0))
        return True if share >= HIDDEN else False if share <= FREE else None

    def follows(self, angle: float | None, opposite: bool) -> bool | None:
        """Whether it moves in a direction, or in the opposite one."""
        if self.length <= STOOD:
            return False
        if self.angle is None or angle is None:
            return None
        apart = _apart(self.angle, angle + (180 if opposite else 0))
        return True if apart <= 22 else False if apart >= 60 else None

    def _direction(self, word: str) -> bool | None:
        if self.length <= STOOD:
            return False
        if self.length < MOVED:
            return None
        wanted = _angle(np.array(DIRECTIONS[word]))
        if self.angle is None:
            apart = _apart(_angle(self.reach), wanted)
            return False if 60 <= apart <= 120 else None  # it may count as both directions of its way
        apart, diagonal = _apart(self.angle, wanted), word.count(" ") == 2
        return True if apart <= 20 else False if apart >= (30 if diagonal else 70) else None

    def _state(self, word: str) -> bool | None:
        facts, k = self.facts, self.k
        changes = self.turned > 0 or self.growth != 1
        if word in ("still", "moves"):
            if changes and self.length <= STOOD:
                return None
            return _zone(self.length if word == "moves" else -self.length, *_LIMITS[word])
        if word == "returns":
            if self.straight or self.length <= STOOD:
                return False
            reach = float(np.hypot(*self.reach))
            return True if reach >= MOVED and float(np.hypot(*self.away)) <= 0.25 * reach else None
        if word == "turns":
            return _zone(self.turned, 60, 3)
        if word in ("grows", "shrinks"):
            return _zone(self.growth if word == "grows" else 1 / self.growth, 1.4, 1.05)
        edge = 0 if word in ("enters", "appears", "emerges") else -1
        inside, area = facts.inside[:, k] / facts.whole[:, k], facts.area[:, k] / facts.whole[:, k]
        if word in ("enters", "leaves"):
            if inside[edge] == 0:
                return True if inside.max() >= 0.8 else None
            return False if inside[edge] >= 0.9 else None
        if word == "appears":
            if area[0] == 0:
                return True if area.max() >= 0.5 else None
            return False if area[0] >= 0.5 else None
        hidden = [self.covered_by(other) for other in range(facts.count) if other != k]
        if word == "hidden":
            return True if True in hidden else None if None in hidden else False
        if word == "emerges":
            if area[0] == 0 and inside[0] >= 0.9 and area.max() >= 0.8:
                return True
            return None if True in hidden or None in hidden else False
        covered = (facts.cover[:, :, k] / facts.whole)[facts.inside >= 0.5 * facts.whole].max(initial=0)
        if covered >= HIDDEN:
            return self.state("moves") or None
        return False if covered <= FREE else None


_LIMITS = {"moves": (MOVED, STOOD), "still": (-STOOD, -MOVED)}


def _zone(value: float, yes: float, no: float) -> bool | None:
    return True if value >= yes else False if value <= no else None


def _angle(vector: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(vector[1], vector[0])))


def _apart(first: float, second: float) -> float:
    """The angle between two directions, 0 to 180 degrees."""
    return abs((first - second + 180) % 360 - 180)


def _bits_of(members: np.ndarray) -> int:
    return sum(1 << int(k) for k in np.flatnonzero(members))
