"""The data of a generated scene.

A `Scene` can be rebuilt from its id alone (`layout.build_scene`), drawn (`render.render`), and described
(`prompts.draw_prompts`, `captions.draw_caption`). Ground truth comes from the scene and the visible masks of the
renderer, never from the picture.
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
"""Longer side of an object's silhouette box as a share of the image's shorter side. The gaps between the bands make the
answer to a word such as "large" clear."""

HELD_OUT_PAIRS = (
    ("red", "mug"), ("blue", "star"), ("green", "fish"), ("yellow", "car"), ("purple", "key"), ("orange", "book"),
    ("pink", "house"), ("white", "bottle"), ("black", "heart"), ("brown", "ring"), ("grey", "leaf"), ("red", "tree"),
)  # fmt: skip
"""Pairs of colour and category that the training split never draws and `test-words` prefers."""


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene: a word of each of CATEGORIES, COLOURS, TEXTURES and SIZES, and its geometry.

    Attributes:
        centre_xy: centre of the silhouette's box, pixels.
        extent_wh: width and height of the silhouette's box before rotation, pixels.
        rotation: degrees, counter-clockwise.
        variant: number of the category's drawing.
        seed: of the other details (exact shade, stripe width, dot spacing, highlight).
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
    """Names of drawing styles in `backgrounds.py` and `finish.py` for the whole picture.

    `test-look` shares no name with the other splits.
    """

    background: str
    outline: str
    lighting: str
    finish: str
    seed: int


@dataclass(frozen=True)
class Scene:
    """A scene.

    Attributes:
        id: `"{split}-{seed}-{index}"`, from which it can be rebuilt at the same size.
        image_size: (H, W) in pixels.
        objects: from back to front.
        relations: intended by the layout: (one of RELATIONS, subject index, object index); "behind" means that the
            object overlaps the subject and is drawn later.
        look: style of the picture.
        clutter: number of small scraps in the background (never a target, never in the masks).
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

    Attributes:
        image: (H, W, 3) uint8.
        index: (H, W) uint8, 0 for background, k + 1 where object k is visible. At least half of each silhouette is
            visible, and at least 40 px at 256 px size.
    """

    image: np.ndarray
    index: np.ndarray

    def masks(self, count: int) -> np.ndarray:
        """Visible masks, (count, H, W) bool."""
        return self.index[None] == np.arange(1, count + 1, dtype=np.uint8)[:, None, None]


@dataclass(frozen=True)
class ScenePrompt:
    """A prompt about a scene and its answer.

    Attributes:
        text: the prompt.
        references: object indices, in order of the `<mask-ref>` in the text.
        targets: sorted object indices; empty for a no-target prompt.
        kind: one of KINDS, or a kind of `reasoning` or `unknown`.
    """

    text: str
    references: tuple[int, ...]
    targets: tuple[int, ...]
    kind: str
