"""Places the objects of a scene: builds a whole scene from its id alone."""

import hashlib

import numpy as np

from maskselect.scenes.backgrounds import background_colours
from maskselect.scenes.board import Board, Piece
from maskselect.scenes.materials import shade
from maskselect.scenes.palette import Theme, draw_count, draw_look, draw_object, draw_theme, pick
from maskselect.scenes.spec import SPLITS, Look, Scene, SceneObject

_SUPPORTS = ("square", "book", "mug", "car", "circle", "ball", "cross", "bottle")
_CONTAINERS = ("circle", "square", "ring", "ball", "heart", "house", "diamond", "mug", "book", "triangle", "car",
               "ring")  # fmt: skip
_RELATION_SHARES = (0.27, 0.25, 0.24, 0.24)  # on, inside, touching, behind


def parse_id(scene_id: str) -> tuple[str, int, int]:
    """Split `"{split}-{seed}-{index}"`; the split itself may contain a hyphen."""
    split, seed, index = scene_id.rsplit("-", 2)
    if split not in SPLITS:
        raise ValueError(f"scene id {scene_id!r} has an unknown split; expected one of {', '.join(SPLITS)}")
    return split, int(seed), int(index)


def scene_ids(split: str, seed: int, count: int) -> list[str]:
    """The first `count` scene ids of a split."""
    return [f"{split}-{seed}-{index}" for index in range(count)]


def _generator(scene_id: str) -> np.random.Generator:
    # Not hash(), which differs between processes.
    digest = hashlib.sha256(scene_id.encode()).digest()
    return np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest[:16], "little")))


class _Builder:
    """Builds one scene."""

    def __init__(self, scene_id: str, image_size: tuple[int, int]) -> None:
        self.split, _, _ = parse_id(scene_id)
        self.rng = _generator(scene_id)
        self.size, self.short = image_size, min(image_size)
        self.count = draw_count(self.rng)
        self.theme: Theme = draw_theme(self.rng, self.split, self.count)
        self.look: Look = draw_look(self.rng, self.split)
        self.behind = background_colours(self.look.background, self.look.seed)
        self.board = Board(image_size, max(1, round(0.03 * self.short)))
        self.relations: list[tuple[str, int, int]] = []

    def draw(
        self, category: str | None = None, size: str | None = None, level: bool = False, upon: SceneObject | None = None
    ) -> Piece:
        behind = self.behind
        if upon is not None:
            behind = np.concatenate([behind, shade(upon.colour, upon.seed)[None]])
        return Piece(draw_object(self.rng, self.theme, self.look, self.short, behind, category, size, level))

    def place_freely(self, piece: Piece, tries: int = 40) -> int | None:
        return self.board.place_freely(piece, self.rng, tries)

    def category_of(self, options: tuple[str, ...]) -> str:
        """One of the options, preferably of the theme."""
        themed = tuple(category for category in self.theme.categories if category in options)
        return pick(self.rng, themed if themed and self.rng.random() < 0.7 else options)

    def relate(self, relation: str) -> None:
        """Place an object and a second one in a relation to it, as far as there is room."""
        size = {"on": pick(self.rng, ("medium", "large")), "inside": "large"}.get(relation)
        hosts = {"on": _SUPPORTS, "inside": _CONTAINERS}.get(relation)
        category = self.category_of(hosts) if hosts else None
        host = self.draw(category, size or pick(self.rng, ("small", "medium", "medium", "large")), relation == "on")
        host_at = self.place_freely(host, 60)
        if host_at is None:
            return
        for _ in range(4):
            sizes: tuple[str, ...] = ("small", "small", "medium")
            if relation in ("touching", "behind"):
                sizes = ("small", "medium", "medium", "large")
            elif relation == "on" and host.thing.size == "large":
                sizes = ("small", "medium")
            subject = self.draw(None, pick(self.rng, sizes), relation == "on", host.thing)
            if self.board.place_related(subject, relation, host_at, self.rng):
                self.relations.append((relation, len(self.board.pieces) - 1, host_at))
                return

    def fill_up(self) -> None:
        """Add objects up to the count, smaller ones after failures; stop after six failures."""
        failures = 0
        while len(self.board.pieces) < self.count and failures < 6:
            size = None if failures == 0 else ("medium" if failures < 3 else "small")
            if self.place_freely(self.draw(size=size)) is None:
                failures += 1
        while len(self.board.pieces) < 2:  # only for images of unusual proportions
            self.place_freely(self.draw(size="small"), 400)

    def build(self, scene_id: str) -> Scene:
        planned = int(self.rng.choice(3, p=(0.5, 0.32, 0.18)))
        for _ in range(planned):
            if len(self.board.pieces) + 2 <= self.count:
                self.relate(pick(self.rng, ("on", "inside", "touching", "behind"), _RELATION_SHARES))
        self.fill_up()
        plain = self.look.lighting == "none" and self.look.finish == "none"
        clutter = 0 if plain or self.rng.random() < 0.7 else int(self.rng.integers(2, 9))
        objects, relations = self._ordered()
        return Scene(scene_id, self.split, self.size, objects, relations, self.look, clutter)

    def _ordered(self) -> tuple[tuple[SceneObject, ...], tuple[tuple[str, int, int], ...]]:
        """The objects from back to front: hidden ones first, those inside or on others last."""
        depth = self.rng.random(len(self.board.pieces))
        for relation, subject, _ in self.relations:
            depth[subject] += -2 if relation == "behind" else 2
        order = np.argsort(depth)
        rank = {int(old): new for new, old in enumerate(order)}
        objects = tuple(self.board.pieces[int(old)].thing for old in order)
        return objects, tuple((relation, rank[subject], rank[host]) for relation, subject, host in self.relations)


def build_scene(scene_id: str, image_size: tuple[int, int] = (256, 256)) -> Scene:
    """Build a scene from its id. Every process builds the same scene.

    Args:
        scene_id: `"{split}-{seed}-{index}"` with the split one of `spec.SPLITS`.
        image_size: (H, W), each at least 64. Another size gives another arrangement.

    Raises:
        ValueError: the split is unknown or the size too small.
    """
    if min(image_size) < 64:
        raise ValueError(f"image_size {image_size} is too small; expected a shorter side of at least 64 px")
    return _Builder(scene_id, image_size).build(scene_id)
