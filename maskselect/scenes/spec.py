"""What a generated scene is, before anything is drawn or said about it.

A `Scene` is plain data: it can be rebuilt from its id alone (`layout.build_scene`), drawn (`render.render`), and talked
about (`prompts.draw_prompts`, `captions.caption`). Ground truth is always computed from the scene and from the visible
masks that the renderer derives from it, never from the picture.
"""

from dataclasses import dataclass

import numpy as np

CATEGORIES = (
    "circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart", "mug", "bottle",
    "ball", "book", "key", "leaf", "fish", "house", "car", "tree", "chair", "lamp",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
TEXTURES = ("plain", "striped", "dotted", "shiny")
SIZES = ("small", "medium", "large")
SPLITS = ("train", "val", "test", "test-words", "test-look")
RELATIONS = ("on", "inside", "touching", "behind")
KINDS = (
    "category", "attribute", "absolute position", "relative position", "comparison", "interaction", "combination",
)  # fmt: skip

SIZE_BANDS = {"small": (0.10, 0.15), "medium": (0.19, 0.25), "large": (0.31, 0.44)}
"""Longer side of an object's silhouette box as a share of the image's shorter side. The gaps between the bands are
deliberate: a word such as "large" always has a clear answer."""

HELD_OUT_PAIRS = (
    ("red", "mug"), ("blue", "star"), ("green", "fish"), ("yellow", "car"), ("purple", "key"), ("orange", "book"),
    ("pink", "house"), ("white", "bottle"), ("black", "heart"), ("brown", "ring"), ("grey", "leaf"), ("red", "tree"),
)  # fmt: skip
"""Colour-category combinations that the training split never draws and that `test-words` favours."""


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene.

    category, colour, texture, size: words from the tables above.
    centre_xy: centre of the silhouette's box, pixels.
    extent_wh: width and height of the silhouette's box before rotation, pixels.
    rotation: degrees, counter-clockwise.
    variant: which of the category's drawings is used (each category has at least two in every split).
    seed: everything else about how it is drawn (exact shade, stripe width, dot spacing, highlight).
    """

    category: str
    colour: str
    texture: str
    size: str
    centre_xy: tuple[float, float]
    extent_wh: tuple[float, float]
    rotation: float
    variant: int
    seed: int


@dataclass(frozen=True)
class Look:
    """How the whole picture is drawn: names of drawing recipes in `backgrounds.py` and `materials.py`.

    The names used by `train`, `val`, `test` and `test-words` and those of `test-look` are disjoint.
    """

    background: str
    outline: str
    lighting: str
    finish: str
    seed: int


@dataclass(frozen=True)
class Scene:
    """A scene: objects back to front, and the relations that the layout made on purpose.

    id: `"{split}-{seed}-{index}"`, enough to rebuild it at the same size.
    image_size: (H, W) in pixels.
    relations: (relation, subject index, object index) with relation one of RELATIONS; "behind" means that the
        object overlaps the subject and is drawn later.
    clutter: number of small unnamed scraps drawn as part of the background (never a target, never in the masks).
    """

    id: str
    split: str
    image_size: tuple[int, int]
    objects: tuple[SceneObject, ...]
    relations: tuple[tuple[str, int, int], ...]
    look: Look
    clutter: int


@dataclass(frozen=True)
class Rendering:
    """A drawn scene.

    image: (H, W, 3) uint8.
    index: (H, W) uint8, 0 for background, k + 1 where object k is the visible one. Every object of a scene is visible
        with at least half of its silhouette and at least 40 px at 256 px size.
    """

    image: np.ndarray
    index: np.ndarray

    def masks(self, count: int) -> np.ndarray:
        """Visible masks, (count, H, W) bool."""
        return self.index[None] == np.arange(1, count + 1, dtype=np.uint8)[:, None, None]


@dataclass(frozen=True)
class ScenePrompt:
    """One question about a scene and its answer.

    text: the prompt; every `<mask-ref>` in it stands for the object at the same place in `references`.
    references: object indices, in order of the `<mask-ref>` placeholders.
    targets: sorted object indices that answer it; empty when nothing does.
    kind: one of KINDS.
    """

    text: str
    references: tuple[int, ...]
    targets: tuple[int, ...]
    kind: str
