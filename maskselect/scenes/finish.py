"""Outlines of objects, light, shadows, and the artefacts of a camera or printer."""

import cv2
import numpy as np

from maskselect.scenes.backgrounds import smooth_noise

TRAIN_OUTLINES = ("none", "dark", "light", "soft")
TEST_LOOK_OUTLINES = ("thick", "sketchy")
TRAIN_LIGHTINGS = ("none", "shadow", "gradient", "vignette", "spot")
TEST_LOOK_LIGHTINGS = ("two-spot", "colour-cast")
TRAIN_FINISHES = ("none", "noise", "blur", "jpeg")
TEST_LOOK_FINISHES = ("specks", "posterise", "film")


def outline_weight(fine: np.ndarray, style: str, width: int) -> np.ndarray:
    """Coverage of an outline, (h, w) uint8, always inside the silhouette, so that masks do not depend on it.

    Args:
        fine: (h, w) uint8 coverage of the silhouette, with an empty border.
        style: name of an outline.
        width: in samples.
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    edge = cv2.subtract(fine, cv2.erode(fine, kernel))
    if style == "soft":
        return cv2.min(cv2.GaussianBlur(edge, (0, 0), width), fine)
    if style != "sketchy":
        return edge
    # Two strokes: the same edge with two small shifts.
    moved = [cv2.warpAffine(edge, np.array([[1, 0, dx], [0, 1, dy]], np.float32), edge.shape[::-1])
             for dx, dy in ((width, 0.6 * width), (-width, -0.8 * width))]  # fmt: skip
    return cv2.min(cv2.max(moved[0], moved[1]), fine)


def outline_colour(style: str, base: np.ndarray, seed: int) -> np.ndarray:
    """The colour of an outline, (3,) float32."""
    if style == "light":
        return np.full(3, 245, np.float32) if base.min() < 190 else np.full(3, 130, np.float32)
    if style == "thick":
        choices = np.array([(20, 40, 90), (90, 20, 40), (20, 80, 60), (70, 30, 90), (0, 0, 0)], np.float32)
        return choices[np.random.default_rng((seed, 5)).integers(len(choices))]
    return np.full(3, 15, np.float32) if base.max() > 60 else np.full(3, 105, np.float32)


def shadow_style(lighting: str, seed: int, short: int) -> tuple[int, int, float, float] | None:
    """Offset x, offset y, blur (pixels) and darkness of the objects' shadows; None for no shadows."""
    rng = np.random.default_rng((seed, 6))
    if lighting == "none" or (lighting != "shadow" and rng.random() < 0.4):
        return None
    reach = short * rng.uniform(0.008, 0.025)
    angle = rng.uniform(0, 2 * np.pi)
    blur = short * rng.uniform(0.004, 0.014)
    return round(reach * np.cos(angle)), round(reach * np.sin(angle)), float(blur), float(rng.uniform(0.2, 0.5))


def _spot(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, width: float) -> np.ndarray:
    centre = rng.uniform(0.1, 0.9, 2)
    return np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width)


def _light_field(style: str, rng: np.random.Generator) -> np.ndarray:
    """Factors (33, 33, 3) float32, at low resolution because light changes slowly."""
    y, x = np.mgrid[0:1:33j, 0:1:33j]
    if style == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        field = 1 + rng.uniform(0.15, 0.3) * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    elif style == "vignette":
        field = 1.04 - rng.uniform(0.35, 0.7) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    elif style == "spot":
        field = 0.8 + rng.uniform(0.2, 0.35) * _spot(rng, y, x, 0.2)
    elif style == "two-spot":
        field = 0.76 + 0.3 * _spot(rng, y, x, 0.08) + 0.3 * _spot(rng, y, x, 0.12)
    else:
        field = 1 + 0.1 * (y - 0.5)
    factors = np.repeat(field[..., None], 3, axis=2)
    if style == "colour-cast":
        casts = ((1.08, 1.0, 0.86), (0.88, 0.99, 1.1), (0.94, 1.06, 0.92))
        factors = factors * casts[int(rng.integers(3))]
    return factors.astype(np.float32)


def light(image: np.ndarray, style: str, seed: int) -> np.ndarray:
    """Apply the light to a picture, (H, W, 3) uint8 to (H, W, 3) uint8."""
    if style in ("none", "shadow"):
        return image
    field = _light_field(style, np.random.default_rng((seed, 7)))
    # Fixed point: 128 is a factor of 1.
    factors = cv2.resize(np.clip(field * 128, 0, 255).astype(np.uint8), image.shape[1::-1])
    return cv2.multiply(image, factors, scale=1 / 128)


def _grain(rng: np.random.Generator, size: tuple[int, ...], strength: float, channels: int) -> np.ndarray:
    noise = rng.standard_normal((*size[:2], channels), dtype=np.float32) * np.float32(strength)
    return np.broadcast_to(noise, (*size[:2], 3))


def develop(image: np.ndarray, style: str, seed: int) -> np.ndarray:
    """Apply the last step to a picture, (H, W, 3) uint8 to (H, W, 3) uint8."""
    rng = np.random.default_rng((seed, 8))
    if style == "noise":
        noise = rng.integers(0, 256, image.shape, dtype=np.uint8)
        weight = float(rng.uniform(0.03, 0.11))
        return cv2.addWeighted(image, 1.0, noise, weight, -127.5 * weight)
    if style == "blur":
        sigma = rng.uniform(0.4, 0.9) * min(image.shape[:2]) / 256
        return cv2.GaussianBlur(image, (0, 0), max(0.3, sigma))
    if style == "jpeg":
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 90))])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    if style == "specks":
        chance = rng.random(image.shape[:2], dtype=np.float32)
        share = rng.uniform(0.004, 0.02)
        speckled = image.copy()
        speckled[chance < share / 2] = 0
        speckled[chance > 1 - share / 2] = 255
        return speckled
    if style == "posterise":
        step = int(rng.integers(20, 38))
        table = np.clip((np.arange(256) // step) * step + step // 2, 0, 255).astype(np.uint8)
        return cv2.LUT(image, table)
    if style == "film":
        clumps = smooth_noise(rng, image.shape[:2], (image.shape[0] / 2, image.shape[1] / 2)) - 0.5
        shifted = image.astype(np.float32) * 0.92 + 14 + clumps[..., None] * 34 + _grain(rng, image.shape, 5, 1)
        return np.clip(shifted, 0, 255).astype(np.uint8)
    return image
