"""Backgrounds: each mixes two colours with the weights of a random pattern."""

import colorsys
from collections.abc import Callable

import cv2
import numpy as np

TRAIN_BACKGROUNDS = (
    "white", "flat", "linear", "radial", "wood", "fabric", "grass", "stone", "tiles", "bokeh", "horizon",
)  # fmt: skip
TEST_LOOK_BACKGROUNDS = ("brick", "water", "checker", "marble", "ruled")

_FAMILIES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float], float]] = {
    # hue range, saturation range, value range, how far the second colour's value lies from the first's
    "linear": ((0, 360), (0.05, 0.5), (0.35, 1.0), 0.3),
    "radial": ((0, 360), (0.05, 0.5), (0.3, 1.0), 0.3),
    "wood": ((20, 38), (0.3, 0.6), (0.45, 0.85), 0.15),
    "fabric": ((0, 360), (0.05, 0.5), (0.25, 0.95), 0.12),
    "grass": ((75, 120), (0.3, 0.6), (0.4, 0.75), 0.18),
    "stone": ((0, 360), (0.0, 0.15), (0.35, 0.85), 0.2),
    "tiles": ((0, 360), (0.02, 0.35), (0.5, 1.0), 0.12),
    "bokeh": ((0, 360), (0.1, 0.5), (0.2, 0.7), 0.25),
    "brick": ((4, 24), (0.35, 0.6), (0.5, 0.75), 0.2),
    "water": ((185, 215), (0.25, 0.5), (0.5, 0.85), 0.18),
    "checker": ((0, 360), (0.03, 0.35), (0.5, 0.95), 0.2),
    "marble": ((0, 360), (0.0, 0.12), (0.75, 0.97), 0.25),
    "ruled": ((35, 60), (0.0, 0.1), (0.92, 1.0), 0.1),
}


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value), dtype=np.float32) * 255


def _flat_colour(rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    if kind < 0.25:
        return np.full(3, rng.uniform(200, 245), np.float32)
    if kind < 0.4:
        return np.full(3, rng.uniform(0, 35), np.float32)
    if kind < 0.5:
        return np.full(3, rng.uniform(80, 170), np.float32)
    if kind < 0.8:
        return _rgb(rng.uniform(0, 360), rng.uniform(0.08, 0.25), rng.uniform(0.85, 1.0))
    return _rgb(rng.uniform(0, 360), rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.95))


def background_colours(name: str, seed: int) -> np.ndarray:
    """The two main colours of a background, (2, 3) float32 in 0..255."""
    rng = np.random.default_rng((seed, 3))
    if name == "white":
        return np.full((2, 3), 255, np.float32)
    if name == "flat":
        return np.stack([_flat_colour(rng)] * 2)
    if name == "horizon":
        sky = _rgb(rng.uniform(190, 225), rng.uniform(0.1, 0.45), rng.uniform(0.75, 1.0))
        return np.stack([sky, _rgb(rng.uniform(25, 110), rng.uniform(0.2, 0.5), rng.uniform(0.4, 0.75))])
    hue, saturation, value, spread = _FAMILIES[name]
    h, s, v = rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value)
    other = v - spread if v > 0.5 else v + spread
    return np.stack([_rgb(h, s, v), _rgb(h + rng.uniform(-15, 15), s, min(max(other, 0.05), 1.0))])


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[float, float]) -> np.ndarray:
    """Blurry noise with about `cells` blobs down and across, (H, W) float32 in 0..1."""
    grid = rng.random((max(2, round(cells[0])), max(2, round(cells[1]))), dtype=np.float32)
    return cv2.resize(grid, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _fractal(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    total = np.zeros(size, np.float32)
    for octave, weight in ((4, 0.45), (9, 0.25), (22, 0.18), (60, 0.12)):
        total += np.float32(weight) * smooth_noise(rng, size, (octave, octave))
    return total


def _axes(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates as shares of the shorter side, (H, 1) and (1, W) float32."""
    short = np.float32(min(size))
    return np.arange(size[0], dtype=np.float32)[:, None] / short, np.arange(size[1], dtype=np.float32)[None] / short


def _linear(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    return (ramp - ramp.min()) / (ramp.max() - ramp.min())


def _radial(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    centre = rng.uniform(0.2, 0.8, 2).astype(np.float32)
    return np.clip(np.hypot(y - centre[0], x - centre[1]) / np.float32(0.9), 0, 1)


def _wood(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    upright = rng.random() < 0.5
    along, across = (y, x) if upright else (x, y)
    bend = smooth_noise(rng, size, (4, 3) if upright else (3, 4))
    rings = np.mod(across * np.float32(rng.uniform(5, 9)) + bend * np.float32(1.6) + 0 * along, 1)
    fibre = smooth_noise(rng, size, (6, 120) if upright else (120, 6))
    planks = np.mod(across * np.float32(rng.choice((2.5, 4.0))) + 0 * along, 1) < 0.025
    return rings * 0.6 + fibre * 0.4 + planks * np.float32(0.6)


def _fabric(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    turns = np.float32(2 * np.pi * rng.uniform(22, 45))
    weave = 0.5 + 0.25 * np.sin(x * turns) * np.cos(y * turns) + 0.15 * np.sin((x + y) * turns * 0.5)
    return weave + 0.3 * (smooth_noise(rng, size, (90, 30)) - 0.5)


def _grass(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return 0.55 * smooth_noise(rng, size, (40, 130)) + 0.45 * smooth_noise(rng, size, (8, 10))


def _stone(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return np.clip((_fractal(rng, size) - 0.25) * 2, 0, 1)


def _tiles(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    count = rng.uniform(3, 7)
    u, v = x * np.float32(count) + np.float32(rng.random()), y * np.float32(count) + np.float32(rng.random())
    table = rng.random((32, 32), dtype=np.float32) * np.float32(0.45)
    cell = table[(v.astype(np.int32) % 32), (u.astype(np.int32) % 32)]
    return np.where((np.mod(u, 1) < 0.06) | (np.mod(v, 1) < 0.06), np.float32(1.25), cell)


def _bokeh(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    scale = max(1, min(size) // 96)
    small = np.zeros((size[0] // scale, size[1] // scale), np.float32)
    short = min(small.shape)
    for _ in range(int(rng.integers(8, 20))):
        spot = (int(rng.integers(small.shape[1])), int(rng.integers(small.shape[0])))
        overlay = np.zeros_like(small)
        cv2.circle(overlay, spot, max(2, int(short * rng.uniform(0.04, 0.16))), float(rng.uniform(0.25, 0.7)), -1)
        small += overlay
    return cv2.resize(cv2.GaussianBlur(np.minimum(small, 1.1), (0, 0), max(0.6, short * 0.015)), (size[1], size[0]))


def _horizon(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    height = size[0] / min(size)
    level = np.float32(height * rng.uniform(0.35, 0.65)) + np.float32(0.02) * np.sin(x * np.float32(rng.uniform(2, 7)))
    below = np.clip((y - level) * np.float32(rng.uniform(40, 160)), 0, 1)
    return below * (0.8 + 0.25 * smooth_noise(rng, size, (30, 12))) + (1 - below) * 0.25 * (y / height)


def _brick(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    v = y * np.float32(rng.uniform(7, 12))
    u = x * np.float32(rng.uniform(3.5, 5.5)) + np.floor(v) * np.float32(0.5)
    cell = rng.random((32, 32), dtype=np.float32)[np.floor(v).astype(np.int32) % 32, np.floor(u).astype(np.int32) % 32]
    mortar = (np.mod(u, 1) < 0.05) | (np.mod(v, 1) < 0.1)
    return np.where(mortar, np.float32(-0.9), cell * 0.6 + 0.3 * smooth_noise(rng, size, (60, 60)))


def _water(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    drift = smooth_noise(rng, size, (5, 5)) * np.float32(5)
    swell = np.sin(y * np.float32(rng.uniform(45, 80)) + drift * 2 + np.sin(x * np.float32(rng.uniform(8, 16)) + drift))
    return 0.5 + 0.4 * swell


def _checker(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    count = np.float32(rng.uniform(5, 10))
    return ((np.floor(x * count) + np.floor(y * count)) % 2).astype(np.float32)


def _marble(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    slope = x * np.float32(rng.uniform(2, 5)) + y * np.float32(rng.uniform(1, 4))
    veins = np.abs(np.sin(slope + 9 * _fractal(rng, size)))
    return np.clip(1 - veins * 2.2, 0, 1) + 0.2 * smooth_noise(rng, size, (5, 5))


def _ruled(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = _axes(size)
    lines = (np.mod(y * np.float32(rng.uniform(10, 18)), 1) < 0.09).astype(np.float32)
    margin = np.abs(x - np.float32(rng.uniform(0.08, 0.2))) < 0.006
    return lines * 3 + margin * np.float32(3) + 0.5 * smooth_noise(rng, size, (80, 80))


_WEIGHTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "linear": _linear, "radial": _radial, "wood": _wood, "fabric": _fabric, "grass": _grass, "stone": _stone,
    "tiles": _tiles, "bokeh": _bokeh, "horizon": _horizon, "brick": _brick, "water": _water, "checker": _checker,
    "marble": _marble, "ruled": _ruled,
}  # fmt: skip
"""The weight of the second colour at each pixel, (H, W) float32 around 0..1."""


def background(name: str, seed: int, size: tuple[int, int]) -> np.ndarray:
    """Draw a background, (H, W, 3) uint8."""
    first, second = background_colours(name, seed)
    if name in ("white", "flat"):
        canvas = np.empty((*size, 3), np.uint8)
        canvas[:] = np.round(first).astype(np.uint8)
        return canvas
    weight = _WEIGHTS[name](np.random.default_rng((seed, 4)), size).astype(np.float32)
    weight = np.broadcast_to(weight, size)
    # A table of 256 mixtures for weights in -1..3 is much faster than mixing floats per pixel.
    steps = np.linspace(-1, 3, 256, dtype=np.float32)[:, None]
    table = np.clip(first + (second - first) * steps, 0, 255).astype(np.uint8)
    level = np.clip((weight + 1) * np.float32(63.75), 0, 255).astype(np.uint8)
    return table[level]
