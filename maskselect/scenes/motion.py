"""Scenes in motion: the data of a clip, and its layout from the clip's id alone.

The objects, their words and looks are those of `layout.py`, on one static background. Each object has one of MOTIONS.
Every coordinate is a function of the time u in [0, 1], so another number of frames samples the same motions.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from maskselect.scenes.backgrounds import background_colours
from maskselect.scenes.materials import shade
from maskselect.scenes.palette import draw_look, draw_object, draw_theme, pick
from maskselect.scenes.shapes import rotated_box
from maskselect.scenes.spec import SPLITS, Look, SceneObject
from maskselect.scenes.stream import image_size_of

MOTIONS = ("still", "moves", "returns", "turns", "grows", "shrinks", "enters", "leaves", "crosses", "emerges")
"""`moves`: in one direction. `returns`: away and back. `turns`: on the spot. `grows`, `shrinks`: comes nearer, goes
away. `crosses`: enters and leaves. `emerges`: from behind another object."""

FRAMES, LEAST_FRAMES, MOST_FRAMES = 12, 3, 60
FPS = 8.0

_MOTION_SHARES = (0.17, 0.24, 0.08, 0.07, 0.06, 0.06, 0.14, 0.14, 0.04, 0.0)
_COUNT_SHARES = (0.1, 0.17, 0.22, 0.22, 0.17, 0.12)  # 2 to 7 objects
_EMERGING = 0.12  # share of clips with an object that comes out from behind another one
_THEME_MOTIONS = 0.45  # share of objects that repeat the motion of an earlier one
_CROSSING = 0.5  # share of moving objects whose path should meet another object
_SOLID = ("square", "circle", "ball", "book", "house")  # hide what is behind their middle
_TURNING = ("triangle", "star", "cross", "heart", "mug", "bottle", "book", "key", "leaf", "fish", "house", "car",
            "tree", "chair", "lamp")  # fmt: skip
"""Categories whose turn is visible and that do not look like another category meanwhile."""

_GAP = 0.03  # of the shorter side, between boxes of objects that stand still
_APART = 0.2  # of the time, between objects that enter, and between objects that leave
_TRIES = 12


@dataclass(frozen=True, eq=False)
class Track:
    """The motion of one object over T frames.

    Attributes:
        motion: one of MOTIONS.
        centre_xy: (T, 2) float64, centre of the silhouette's box, pixels; it may be outside of the picture.
        scale: (T,) float64, share of the object's extent, in (0, 1].
        turn: (T,) float64, degrees counter-clockwise in addition to the object's rotation.
    """

    motion: str
    centre_xy: np.ndarray
    scale: np.ndarray
    turn: np.ndarray


@dataclass(frozen=True)
class MovingScene:
    """A clip.

    Attributes:
        id: `"{split}-clip-{seed}-{index}"`, from which it can be rebuilt.
        split: one of `spec.SPLITS`.
        image_size: (H, W) in pixels.
        frames: T.
        objects: from back to front in all frames. The extent of an object is the greatest it has.
        tracks: of the objects.
        look: style of the picture.
        clutter: number of small scraps in the background.
    """

    id: str
    split: str
    image_size: tuple[int, int]
    frames: int
    objects: tuple[SceneObject, ...]
    tracks: tuple[Track, ...]
    look: Look
    clutter: int


def clip_ids(split: str, seed: int, count: int) -> list[str]:
    """The first `count` clip ids of a split.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"scenes have no split {split!r}; there are {', '.join(SPLITS)}")
    return [f"{split}-clip-{seed}-{index}" for index in range(count)]


def split_of(clip_id: str) -> str:
    """The split in a clip id.

    Raises:
        ValueError: it is not the id of a clip.
    """
    parts = clip_id.rsplit("-", 3)
    if len(parts) != 4 or parts[0] not in SPLITS or parts[1] != "clip":
        raise ValueError(f"clip id {clip_id!r} is unknown; expected SPLIT-clip-SEED-INDEX, split {', '.join(SPLITS)}")
    return parts[0]


def build_clip(clip_id: str, frames: int = FRAMES) -> MovingScene:
    """Build a clip from its id. Every process builds the same clip.

    Args:
        clip_id: `"{split}-clip-{seed}-{index}"`.
        frames: T, 3 to 60.

    Raises:
        ValueError: the id or the number of frames is wrong.
    """
    split = split_of(clip_id)
    if not LEAST_FRAMES <= frames <= MOST_FRAMES:
        raise ValueError(f"a clip of {frames} frames; expected {LEAST_FRAMES} to {MOST_FRAMES}")
    digest = hashlib.sha256(clip_id.encode()).digest()  # not hash(), which differs between processes
    rng = np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest[:16], "little")))
    return _Builder(clip_id, split, image_size_of(clip_id), frames, rng).build()


class _Path:
    """The motion of an object as a function of time; see `Track` for the results."""

    def __init__(self, motion: str, start: np.ndarray, away: np.ndarray, times: tuple[float, float], extra: float):
        self.motion, self.start, self.away, self.extra = motion, start, away, extra
        self.begin, self.end = times

    def track(self, u: np.ndarray) -> Track:
        """The track at times u, (T,) in [0, 1]."""
        progress = (u - self.begin) / (self.end - self.begin)
        ones = np.ones_like(u)
        if self.motion in ("moves", "emerges"):
            progress = np.clip(progress, 0, 1)
        elif self.motion == "leaves":
            progress = np.maximum(progress, 0)
        elif self.motion == "enters":
            progress = np.minimum(progress, 1)
        elif self.motion == "returns":
            progress = np.sin(np.pi * u) ** 2
        elif self.motion != "crosses":
            progress = 0 * u
        bow = np.sin(np.pi * np.clip(progress, 0, 1)) if self.motion == "moves" else 0 * u
        across = np.array([-self.away[1], self.away[0]])
        centre = self.start + progress[:, None] * self.away + bow[:, None] * self.extra * across
        scale, turn = ones, 0 * u
        if self.motion == "grows":
            scale = self.extra + (1 - self.extra) * u
        elif self.motion == "shrinks":
            scale = 1 - (1 - self.extra) * u
        elif self.motion == "turns":
            turn = self.extra * u
        return Track(self.motion, centre, scale, turn)


class _Mover:
    """A placed object with its path."""

    def __init__(self, thing: SceneObject, path: _Path, half: np.ndarray) -> None:
        self.thing, self.path, self.half = thing, path, half
        self.behind: _Mover | None = None
        track = path.track(_CHECKED)
        reach = half * track.scale[:, None]
        self.low, self.high = track.centre_xy - reach, track.centre_xy + reach  # (24, 2)

    def shares(self, other: "_Mover", gap: float = 0.0) -> np.ndarray:
        """Overlap of the boxes at 24 times, as a share of the smaller box: (24,)."""
        sides = np.minimum(self.high, other.high) - np.maximum(self.low, other.low) + gap
        overlap = np.prod(np.maximum(sides, 0), axis=1)
        areas = [np.prod(one.high - one.low, axis=1) for one in (self, other)]
        return overlap / np.minimum(*areas)


_CHECKED = np.linspace(0, 1, 24)


class _Builder:
    """Builds one clip."""

    def __init__(self, clip_id: str, split: str, size: tuple[int, int], frames: int, rng: np.random.Generator) -> None:
        self.id, self.split, self.size, self.frames, self.rng = clip_id, split, size, frames, rng
        self.short = min(size)
        self.edge = np.array(size[::-1], float)
        self.count = 2 + int(rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES))
        self.theme = draw_theme(rng, split, max(self.count, 5))
        self.look = draw_look(rng, split)
        self.behind = background_colours(self.look.background, self.look.seed)
        self.movers: list[_Mover] = []

    def _moment(self, low: float, high: float, leaving: bool) -> float:
        """A time in a range, if possible not close to those at which other objects enter, or leave."""
        motion, name = ("leaves", "end") if leaving else ("enters", "begin")
        others = [getattr(one.path, name) for one in self.movers if one.path.motion in (motion, "crosses")]
        for _ in range(8):
            moment = self.rng.uniform(low, high)
            if all(abs(moment - other) >= _APART for other in others):
                break
        return float(moment)

    def build(self) -> MovingScene:
        if self.rng.random() < _EMERGING:
            self._add_emerging()
        failures = 0
        while len(self.movers) < self.count and failures < 10:
            failures += not self._add(self._motion(), "small" if failures > 3 else None)
        while len(self.movers) < 2:
            self._add("still", "small")
        depth = self.rng.random(len(self.movers))
        for number, mover in enumerate(self.movers):
            if mover.behind is not None:
                depth[number] -= 1
                depth[self.movers.index(mover.behind)] += 1
        ordered = [self.movers[int(number)] for number in np.argsort(depth)]
        u = np.linspace(0, 1, self.frames)
        plain = self.look.lighting == "none" and self.look.finish == "none"
        clutter = 0 if plain or self.rng.random() < 0.7 else int(self.rng.integers(2, 9))
        objects, tracks = tuple(m.thing for m in ordered), tuple(m.path.track(u) for m in ordered)
        return MovingScene(self.id, self.split, self.size, self.frames, objects, tracks, self.look, clutter)

    def _motion(self) -> str:
        if len(self.movers) == self.count - 1 and all(one.path.motion == "still" for one in self.movers):
            return pick(self.rng, ("moves", "returns", "enters", "leaves"))  # something moves in every clip
        if self.movers and self.rng.random() < _THEME_MOTIONS:
            earlier = self.movers[int(self.rng.integers(len(self.movers)))].path.motion
            if earlier != "emerges":
                return earlier
        return pick(self.rng, MOTIONS, _MOTION_SHARES)

    def _thing(self, category: str | None, size: str | None, *behind: SceneObject) -> SceneObject:
        colours = [self.behind, *(shade(one.colour, one.seed)[None] for one in behind)]
        return draw_object(self.rng, self.theme, self.look, self.short, np.concatenate(colours), category, size)

    def _add(self, motion: str, size: str | None = None) -> bool:
        """Add an object with a motion; False if no place was found."""
        category = None
        if motion == "turns":
            themed = tuple(one for one in self.theme.categories if one in _TURNING)
            category = pick(self.rng, themed if themed and self.rng.random() < 0.7 else _TURNING)
        if motion in ("grows", "shrinks"):
            size = pick(self.rng, ("medium", "large"), (0.6, 0.4))
        thing = self._thing(category, size)
        half = np.array(rotated_box(thing)) / 2
        if motion == "turns":
            half = np.full(2, float(np.hypot(*half)))
        crossing, spare = motion not in ("still", "turns") and self.rng.random() < _CROSSING, None
        for _ in range(_TRIES):
            path = self._path(motion, half)
            mover = None if path is None else _Mover(thing, path, half)
            if mover is None or not self._fits(mover):
                continue
            spare = mover
            if not crossing or any(mover.shares(other).max() > 0.5 for other in self.movers):
                break
        if spare is not None:
            self.movers.append(spare)
        return spare is not None

    def _fits(self, mover: _Mover) -> bool:
        """Whether boxes are apart at first and last, and overlap much at few times only."""
        for other in self.movers:
            gap = _GAP * self.short if {mover.path.motion, other.path.motion} <= {"still", "turns"} else 0.0
            shares = mover.shares(other, gap)
            if gap and shares.max() > 0:
                return False
            if max(shares[0], shares[-1]) > 0.05 or (shares > 0.3).mean() > 0.4:
                return False
        return True

    def _inside(self, half: np.ndarray, away: np.ndarray) -> np.ndarray | None:
        """A random start from which the box is inside the picture, also after `away`; None if there is no room."""
        low = half + 2 - np.minimum(away, 0)
        high = self.edge - half - 2 - np.maximum(away, 0)
        return None if (high <= low).any() else self.rng.uniform(low, high)

    def _direction(self) -> np.ndarray:
        """A unit vector close to one of eight directions; sideways and up or down are more frequent."""
        step = 90 if self.rng.random() < 0.72 else 45
        angle = np.radians(90 * self.rng.integers(4) + (step if step == 45 else 0) + self.rng.uniform(-7, 7))
        return np.array([np.cos(angle), np.sin(angle)])

    def _path(self, motion: str, half: np.ndarray) -> _Path | None:
        rng, ahead = self.rng, self._direction()
        if motion in ("moves", "returns"):
            away = ahead * self.short * rng.uniform(0.24, 0.62)
            start = self._inside(half, away)
            return None if start is None else _Path(motion, start, away, (0, 1), rng.uniform(-0.06, 0.06))
        start = self._inside(half, np.zeros(2))
        if start is None:
            return None
        if motion == "leaves":
            away = ahead * self._way_out(start, half, ahead)
            return _Path(motion, start, away, (rng.uniform(0, 0.3), self._moment(0.5, 0.95, True)), 0)
        if motion == "enters":
            away = ahead * self._way_out(start, half, -ahead)
            return _Path(motion, start - away, away, (self._moment(0.05, 0.6, False), rng.uniform(0.75, 1)), 0)
        if motion == "crosses":
            first = start - ahead * self._way_out(start, half, -ahead)
            last = start + ahead * self._way_out(start, half, ahead)
            return _Path(
                motion, first, last - first, (self._moment(0.03, 0.25, False), self._moment(0.75, 0.95, True)), 0
            )
        extra = rng.uniform(0.42, 0.6)
        if motion == "turns":
            extra = float(rng.choice((-1, 1))) * rng.uniform(120, 330)
        return _Path(motion, start, np.zeros(2), (0, 1), extra)

    def _way_out(self, start: np.ndarray, half: np.ndarray, ahead: np.ndarray) -> float:
        """Distance from `start` along `ahead` at which the box is just outside of the picture."""
        room = np.where(ahead > 0, self.edge - start + half, start + half) + 1
        return float(min(room / np.maximum(np.abs(ahead), 1e-6)))

    def _add_emerging(self) -> None:
        """Add an object that stands still, and a smaller one that comes out from behind it."""
        host_thing = self._thing(pick(self.rng, _SOLID), "large")
        half = np.array(rotated_box(host_thing)) / 2
        start = self._inside(half, np.zeros(2))
        if start is None:
            return
        host = _Mover(host_thing, _Path("still", start, np.zeros(2), (0, 1), 0), half)
        self.movers.append(host)
        thing = self._thing(None, "small", host_thing)
        own = np.array(rotated_box(thing)) / 2
        for _ in range(_TRIES):
            ahead = self._direction()
            reach = (half + own + 0.04 * self.short) / np.maximum(np.abs(ahead), 1e-6)
            away = ahead * float(min(reach))
            end = start + away
            if (end - own > 2).all() and (end + own < self.edge - 2).all():
                times = (self.rng.uniform(0.15, 0.4), self.rng.uniform(0.65, 1))
                mover = _Mover(thing, _Path("emerges", start, away, times, 0), own)
                mover.behind = host
                self.movers.append(mover)
                return


def at_middle(thing: SceneObject, size: tuple[int, int]) -> SceneObject:
    """The object in the middle of a picture (H, W), on whole pixels."""
    return replace(thing, centre_xy=(float(size[1] // 2), float(size[0] // 2)))
