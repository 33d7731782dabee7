"""Surfaces: shades of the colour words, and the plain, striped, dotted and shiny textures."""

import colorsys

import cv2
import numpy as np

_HSV_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-8, 8), (0.82, 1.0), (0.75, 1.0)),
    "orange": ((24, 38), (0.85, 1.0), (0.9, 1.0)),
    "yellow": ((50, 60), (0.7, 1.0), (0.9, 1.0)),
    "green": ((95, 148), (0.55, 1.0), (0.4, 0.8)),
    "blue": ((208, 240), (0.68, 1.0), (0.6, 1.0)),
    "purple": ((268, 300), (0.55, 1.0), (0.4, 0.72)),
    "pink": ((322, 350), (0.24, 0.55), (0.94, 1.0)),
    "brown": ((14, 28), (0.5, 0.8), (0.36, 0.58)),
    "black": ((0, 360), (0.0, 0.25), (0.02, 0.15)),
    "white": ((0, 360), (0.0, 0.04), (0.95, 1.0)),
    "grey": ((0, 360), (0.0, 0.07), (0.4, 0.66)),
}
"""Hue in degrees, saturation and value. The regions are well separated."""

NAMED_SHADES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((255, 0, 0), (220, 20, 60), (220, 30, 30)),
    "orange": ((255, 165, 0), (255, 140, 0), (255, 127, 14)),
    "yellow": ((255, 255, 0), (255, 215, 0), (250, 220, 40)),
    "green": ((0, 128, 0), (0, 255, 0), (34, 139, 34), (50, 205, 50), (44, 160, 44)),
    "blue": ((0, 0, 255), (30, 60, 220), (65, 105, 225), (30, 144, 255), (31, 119, 180)),
    "purple": ((128, 0, 128), (148, 0, 211), (138, 43, 226), (148, 103, 189)),
    "pink": ((255, 192, 203), (255, 105, 180), (255, 182, 193)),
    "brown": ((165, 42, 42), (139, 69, 19), (101, 67, 33), (140, 86, 75)),
    "black": ((0, 0, 0), (20, 20, 20), (30, 30, 30)),
    "white": ((255, 255, 255), (250, 250, 250), (245, 245, 245)),
    "grey": ((128, 128, 128), (105, 105, 105), (150, 150, 150), (169, 169, 169)),
}
"""The usual values of these colours in drawing libraries."""


def shade(colour: str, seed: int) -> np.ndarray:
    """A shade of a colour word, (3,) float32 in 0..255, determined by the seed."""
    rng = np.random.default_rng((seed, 1))
    if rng.random() < 0.4:
        named = NAMED_SHADES[colour]
        return np.array(named[int(rng.integers(len(named)))], dtype=np.float32)
    (h0, h1), (s0, s1), (v0, v1) = _HSV_RANGES[colour]
    hue, saturation, value = rng.uniform((h0, s0, v0), (h1, s1, v1))
    return np.array(colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value), dtype=np.float32) * 255


def lab(colours: np.ndarray) -> np.ndarray:
    """CIE Lab of colours in 0..255, (N, 3) float32. Euclidean distances approximate visible differences."""
    pixels = np.ascontiguousarray(colours, dtype=np.float32).reshape(1, -1, 3) / 255
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2Lab).reshape(-1, 3)


def tone(base: np.ndarray, name: str) -> np.ndarray:
    """The colour of a detail on a shade, (3,) float32: dark, light, pale, white, brown or black."""
    if name == "black":
        return np.full(3, 25, np.float32)
    if name == "white":
        return np.full(3, 250, np.float32)
    if name == "brown":
        return np.array((110, 70, 35), np.float32)
    dark_object, light_object = base.max() < 70, base.min() > 200
    if name == "pale":
        return np.array((205, 220, 232), np.float32) if not light_object else np.array((165, 180, 195), np.float32)
    if name == "dark":
        return base * 0.3 + 75 if dark_object else base * (0.7 if light_object else 0.55)
    return base * 0.82 if light_object else base * 0.45 + 255 * 0.55 * (0.75 if dark_object else 1.0)


def companion(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The second colour of stripes and dots, (3,) float: clearly lighter or darker than the base."""
    luma = float(base @ (0.299, 0.587, 0.114))
    choice = rng.random()
    if luma > 170:
        return base * 0.5 if choice < 0.5 else (base * 0.62 if choice < 0.8 else np.full(3, 30, np.float32))
    if luma < 60:
        return base * 0.35 + 255 * 0.62 if choice < 0.5 else np.full(3, 245, np.float32)
    if choice < 0.45:
        return np.full(3, 250, np.float32)
    return base * 0.42 + 255 * 0.58 if choice < 0.75 else base * 0.42


def _grid(shape: tuple[int, int], degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotated pixel coordinates, two (H, W) float32 arrays."""
    height, width = shape
    angle = np.radians(degrees)
    x = np.arange(width, dtype=np.float32)[None] - width / 2
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _mixed(base: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return base + (other - base) * weight[..., None]


def _striped(base: np.ndarray, shape: tuple[int, int], pixel: float, rng: np.random.Generator) -> np.ndarray:
    other = companion(base, rng)
    angle = float(rng.choice((0, 90, 45, -45, rng.uniform(-90, 90))))
    period = max(max(shape) / rng.uniform(3.2, 7.5), 5.0 * pixel)
    duty = rng.uniform(0.32, 0.48)
    across, _ = _grid(shape, angle)
    phase = np.mod(across / np.float32(period) + np.float32(rng.random()), 1)
    return _mixed(base, other.astype(np.float32), (phase < duty).astype(np.float32))


def _dotted(base: np.ndarray, shape: tuple[int, int], pixel: float, rng: np.random.Generator) -> np.ndarray:
    other = companion(base, rng)
    period = max(max(shape) / rng.uniform(3.2, 6.5), 5.5 * pixel)
    radius = rng.uniform(0.25, 0.33)
    u, v = _grid(shape, float(rng.choice((0, 45, rng.uniform(0, 90)))))
    u, v = u / np.float32(period) + np.float32(rng.random()), v / np.float32(period) + np.float32(rng.random())
    if rng.random() < 0.4:
        u = u + np.floor(v) * np.float32(0.5)
    distance = np.hypot(np.mod(u, 1) - 0.5, np.mod(v, 1) - 0.5)
    return _mixed(base, other.astype(np.float32), (distance < radius).astype(np.float32))


def _shiny(base: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    side = float(max(shape))
    style = int(rng.integers(3))
    u, v = _grid(shape, float(rng.uniform(25, 60)) if style != 1 else float(rng.choice((0.0, 90.0))))
    u, v = u / side, v / side
    strength = rng.uniform(0.8, 0.97)
    if style == 0:  # a spot of light at the upper left
        away = (u + rng.uniform(0.12, 0.3)) ** 2 + (v - rng.uniform(-0.12, 0.12)) ** 2
        spot = np.exp(-away / rng.uniform(0.012, 0.03))
    elif style == 1:  # a polished cylinder
        spot = np.exp(-((u + rng.uniform(0.05, 0.25)) ** 2) / 0.006) + 0.4 * np.exp(-((u - 0.3) ** 2) / 0.003) + 0 * v
    else:  # a long highlight and a small one; full-width bands would look like stripes
        u, v = u + rng.uniform(0.12, 0.25), v + rng.uniform(-0.1, 0.1)
        long, short = (u / 0.06) ** 2 + (v / 0.2) ** 2, (u / 0.05) ** 2 + ((v - 0.3) / 0.05) ** 2
        spot = ((long < 1) | (short < 1)).astype(np.float32)
    dimming = np.clip(1.05 - rng.uniform(0.35, 0.6) * (u + 0.35), 0.55, 1.1)
    glare = np.full(3, 255, np.float32) if base.min() < 200 else np.full(3, 150, np.float32)
    return _mixed(base * dimming[..., None], glare, np.clip(spot * strength, 0, 1).astype(np.float32))


def _plain(base: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    style = rng.random()
    surface = np.empty((*shape, 3), dtype=np.float32)
    surface[:] = base
    if style < 0.6:
        return surface
    if style < 0.85:
        u, _ = _grid(shape, float(rng.uniform(0, 360)))
        return surface * (1 + np.float32(rng.uniform(0.08, 0.2) / max(shape)) * u)[..., None]
    return surface + rng.standard_normal(shape, dtype=np.float32)[..., None] * np.float32(rng.uniform(3, 8))


def main_colours(colour: str, texture: str, seed: int) -> np.ndarray:
    """The shade of an object, and the second colour of stripes or dots, (1 or 2, 3) float32."""
    base = shade(colour, seed)
    if texture not in ("striped", "dotted"):
        return base[None]
    second = companion(base, np.random.default_rng((seed, 2)))  # the first draw that `surface` makes
    return np.stack([base, second.astype(np.float32)])


def surface(texture: str, base: np.ndarray, shape: tuple[int, int], pixel: float, seed: int) -> np.ndarray:
    """The surface of a patch, (H, W, 3) float32 in about 0..255.

    Args:
        texture: one of TEXTURES.
        base: shade, (3,).
        shape: (H, W).
        pixel: samples per picture pixel; it limits how fine stripes and dots are.
        seed: of the details.
    """
    rng = np.random.default_rng((seed, 2))
    if texture == "striped":
        return _striped(base, shape, pixel, rng)
    if texture == "dotted":
        return _dotted(base, shape, pixel, rng)
    return _shiny(base, shape, rng) if texture == "shiny" else _plain(base, shape, rng)
