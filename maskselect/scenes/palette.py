"""Draws the properties of a scene's objects except their positions: words, looks, sizes and drawings."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from maskselect.scenes import backgrounds, finish
from maskselect.scenes.materials import lab, main_colours
from maskselect.scenes.shapes import ASPECT_JITTER, DRAWINGS, ROTATION_LIMITS, rotated_box
from maskselect.scenes.spec import CATEGORIES, COLOURS, HELD_OUT_PAIRS, SIZE_BANDS, TEXTURES, Look, SceneObject

CONTRAST = 24.0
"""Least Lab distance of an object's shade from the colours behind it, unless it has a dark outline."""

_TEXTURE_SHARES = (0.45, 0.2, 0.2, 0.15)
_COUNT_SHARES = (0.06, 0.11, 0.16, 0.19, 0.18, 0.14, 0.10, 0.06)  # 2 to 9 objects


@dataclass(frozen=True)
class Theme:
    """The few words that most objects of a scene use, so that groups arise."""

    categories: tuple[str, ...]
    colours: tuple[str, ...]
    textures: tuple[str, ...]
    sizes: tuple[str, ...]
    loyalty: float
    pairs: tuple[tuple[str, str], ...]


Option = TypeVar("Option")


def pick(rng: np.random.Generator, options: tuple[Option, ...], shares: tuple[float, ...] | None = None) -> Option:
    """One of the options, uniformly or by shares with the sum 1."""
    return options[int(rng.choice(len(options), p=shares))]


def _some(rng: np.random.Generator, options: tuple[str, ...], shares: tuple[float, ...]) -> tuple[str, ...]:
    """Between 1 and len(shares) different options."""
    count = 1 + int(rng.choice(len(shares), p=shares))
    return tuple(options[int(place)] for place in rng.permutation(len(options))[:count])


def draw_count(rng: np.random.Generator) -> int:
    """The number of objects of a scene, 2 to 9."""
    return 2 + int(rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES))


def draw_theme(rng: np.random.Generator, split: str, count: int) -> Theme:
    """The theme of a scene of `count` objects; only `test-words` has held-out pairs in it."""
    held_out: tuple[tuple[str, str], ...] = ()
    if split == "test-words":
        held_out = tuple(HELD_OUT_PAIRS[int(place)] for place in rng.permutation(len(HELD_OUT_PAIRS))[:2])
    crowded = count >= 7
    sizes = pick(rng, (("small",), ("medium",), ("small", "medium"), ("small", "medium", "large"), ("medium", "large")),
                 (0.15, 0.1, 0.4, 0.35, 0.0) if crowded else (0.08, 0.12, 0.2, 0.4, 0.2))  # fmt: skip
    return Theme(
        _some(rng, CATEGORIES, (0.2, 0.35, 0.3, 0.15)),
        _some(rng, COLOURS, (0.15, 0.4, 0.3, 0.15)),
        ("plain", *_some(rng, TEXTURES[1:], (0.7, 0.3))) if rng.random() < 0.85 else _some(rng, TEXTURES, (0.6, 0.4)),
        sizes,
        float(rng.choice((0.55, 0.75, 0.9, 1.0))),
        held_out,
    )


def draw_look(rng: np.random.Generator, split: str) -> Look:
    """The look of a picture; the names of `test-look` are in no other split."""
    seed = int(rng.integers(2**31))
    if split == "test-look":
        return Look(pick(rng, backgrounds.TEST_LOOK_BACKGROUNDS), pick(rng, finish.TEST_LOOK_OUTLINES),
                    pick(rng, finish.TEST_LOOK_LIGHTINGS), pick(rng, finish.TEST_LOOK_FINISHES), seed)  # fmt: skip
    if rng.random() < 0.27:  # a simple drawing
        outline = pick(rng, ("none", "dark"), (0.75, 0.25))
        return Look(pick(rng, ("white", "flat"), (0.45, 0.55)), outline, "none", "none", seed)
    background = pick(rng, backgrounds.TRAIN_BACKGROUNDS)
    outline = pick(rng, finish.TRAIN_OUTLINES, (0.4, 0.25, 0.15, 0.2))
    return Look(background, outline, pick(rng, finish.TRAIN_LIGHTINGS), pick(rng, finish.TRAIN_FINISHES), seed)


def stands_out(colour: str, texture: str, seed: int, behind: np.ndarray, look: Look) -> bool:
    """Whether an object contrasts with colours (N, 3). Its stripes or dots must, too, or they look like holes."""
    least = {"dark": 8.0, "sketchy": 18.0}.get(look.outline, CONTRAST)
    colours = lab(main_colours(colour, texture, seed))
    distances = np.linalg.norm(lab(behind)[None] - colours[:, None], axis=2).min(axis=1)
    return bool(distances[0] >= least and distances[-1] >= min(least, 16.0))


def _draw_words(rng: np.random.Generator, theme: Theme, category: str | None) -> tuple[str, str, str]:
    if theme.pairs and category is None and rng.random() < 0.42:
        colour, category = pick(rng, theme.pairs)
    else:
        loyal = rng.random(2) < theme.loyalty
        category = category or pick(rng, theme.categories if loyal[0] else CATEGORIES)
        colour = pick(rng, theme.colours if loyal[1] else COLOURS)
    if rng.random() < 0.75:
        return category, colour, pick(rng, theme.textures)
    return category, colour, pick(rng, TEXTURES, _TEXTURE_SHARES)


def _settle_colour(
    rng: np.random.Generator, words: tuple[str, str, str], behind: np.ndarray, look: Look, allow_held_out: bool
) -> tuple[str, int]:
    """A colour and seed that are allowed and visible; the drawn colour if one of its shades is."""
    category, colour, texture = words
    for attempt in range(60):
        seed = int(rng.integers(2**31))
        allowed = allow_held_out or (colour, category) not in HELD_OUT_PAIRS
        if allowed and stands_out(colour, texture, seed, behind, look):
            return colour, seed
        if attempt % 7 == 6 or not allowed:
            colour = pick(rng, COLOURS)
    return ("grey" if category != "leaf" else "red"), int(rng.integers(2**31))


def draw_object(
    rng: np.random.Generator,
    theme: Theme,
    look: Look,
    short: int,
    behind: np.ndarray,
    category: str | None = None,
    size: str | None = None,
    level: bool = False,
) -> SceneObject:
    """Draw an object without its position: its centre is within a pixel of the origin.

    Args:
        behind: (N, 3) colours that it must contrast with.
        category: None to draw one.
        size: None to draw one.
        level: limit the rotation to 3 degrees.
    """
    category, colour, texture = _draw_words(rng, theme, category)
    colour, seed = _settle_colour(rng, (category, colour, texture), behind, look, bool(theme.pairs))
    size = size or pick(rng, theme.sizes)
    variant = int(rng.integers(len(DRAWINGS[category])))
    limit = ROTATION_LIMITS[category] if not level else min(3.0, ROTATION_LIMITS[category])
    rotation = 0.0 if rng.random() < 0.35 else float(rng.uniform(-limit, limit))
    aspect = DRAWINGS[category][variant].aspect * float(np.exp(rng.uniform(-1, 1) * ASPECT_JITTER[category]))
    extent = (min(1.0, aspect), min(1.0, 1 / aspect))
    low, high = SIZE_BANDS[size]
    target = short * rng.uniform(low + 0.1 * (high - low), high - 0.1 * (high - low))
    centre = (float(rng.random()), float(rng.random()))
    unit = SceneObject(category, colour, texture, size, centre, extent, rotation, variant, seed)
    scale = target / max(rotated_box(unit))
    extent = (extent[0] * scale, extent[1] * scale)
    return SceneObject(category, colour, texture, size, centre, extent, rotation, variant, seed)
