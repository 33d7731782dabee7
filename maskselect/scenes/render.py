"""Draws a scene: the picture, and the index of the visible object at each pixel."""

import cv2
import numpy as np

from maskselect.scenes.backgrounds import background
from maskselect.scenes.finish import develop, light, outline_colour, outline_weight, shadow_style
from maskselect.scenes.materials import shade, surface, tone
from maskselect.scenes.shapes import SUPERSAMPLE, Patch, Placement, drawing_of, fill, silhouette, trace
from maskselect.scenes.spec import Look, Rendering, Scene, SceneObject


def _window(patch: Patch, size: tuple[int, int], dx: int = 0, dy: int = 0) -> tuple[tuple[slice, slice], ...] | None:
    """The slices of the picture and of a patch where they overlap; None if they do not."""
    height, width = patch.alpha.shape
    left, top = patch.left + dx, patch.top + dy
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, size[1]), min(top + height, size[0])
    if x0 >= x1 or y0 >= y1:
        return None
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _draw_shadow(image: np.ndarray, patch: Patch, style: tuple[int, int, float, float]) -> None:
    dx, dy, blur, darkness = style
    rim = int(np.ceil(2 * blur)) + 1
    alpha = cv2.copyMakeBorder(patch.alpha, rim, rim, rim, rim, cv2.BORDER_CONSTANT)
    alpha = cv2.GaussianBlur(alpha, (0, 0), blur)
    windows = _window(Patch(patch.left - rim, patch.top - rim, alpha, alpha), image.shape[:2], dx, dy)
    if windows is not None:
        kept = 255 - cv2.convertScaleAbs(alpha[windows[1]], alpha=darkness)
        image[windows[0]] = cv2.multiply(image[windows[0]], cv2.merge((kept, kept, kept)), scale=1 / 255)


def _sphere_shading(shape: tuple[int, int]) -> np.ndarray:
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
    return np.clip(1.12 - np.float32(0.3) * ((x + 0.35) ** 2 + (y + 0.4) ** 2), 0.6, 1.12)


def _value(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(int(channel) for channel in np.clip(np.round(colour), 0, 255))


def _paint(thing: SceneObject, patch: Patch, place: Placement, look: Look, short: int) -> np.ndarray:
    """Colours of one object's patch, (h, w, 3) uint8, to be blended with the patch's alpha."""
    drawing, base = drawing_of(thing), shade(thing.colour, thing.seed)
    shape = patch.fine.shape
    paint = surface(thing.texture, base, shape, float(SUPERSAMPLE), thing.seed)
    if drawing.round and thing.seed & 6:  # every fourth ball stays flat, as in simple drawings
        paint = paint * _sphere_shading(shape)[..., None]
    colours = np.clip(paint, 0, 255).astype(np.uint8)
    for polygon, name in drawing.patches:
        fill(colours, place(polygon), patch.left, patch.top, _value(tone(base, name)))
    longest = max(thing.extent_wh)
    for polyline, width in drawing.lines:
        trace(colours, place(polyline), patch.left, patch.top, _value(tone(base, "dark")), width * longest)
    if look.outline != "none":
        thick = {"thick": 0.009, "soft": 0.006}.get(look.outline, 0.0045) * short * SUPERSAMPLE
        weight = outline_weight(patch.fine, look.outline, max(1, min(round(thick), round(longest * 0.07))))
        edge = weight.astype(np.float32)[..., None] * np.float32((0.6 if look.outline == "soft" else 1.0) / 255)
        colour = outline_colour(look.outline, base, look.seed)
        colours = (colours + (colour - colours) * edge).astype(np.uint8)
    return cv2.resize(colours, patch.alpha.shape[::-1], interpolation=cv2.INTER_AREA)


def _scatter_clutter(image: np.ndarray, count: int, seed: int) -> None:
    """Draw small scraps in muted colours as part of the background."""
    rng = np.random.default_rng((seed, 9))
    short = min(image.shape[:2])
    for _ in range(count):
        middle = rng.uniform((0, 0), image.shape[1::-1])
        corners = middle + rng.uniform(-0.016, 0.016, (int(rng.integers(2, 5)), 2)) * short
        colour = tuple(int(value) for value in rng.uniform(60, 200, 1) + rng.uniform(-20, 20, 3))
        cv2.polylines(image, [np.round(corners * 8).astype(np.int32)], False, colour, 1, cv2.LINE_AA, 3)


def render(scene: Scene) -> Rendering:
    """Draw a scene. The same scene always gives the same bytes."""
    size, look = scene.image_size, scene.look
    short = min(size)
    image = background(look.background, look.seed, size)
    _scatter_clutter(image, scene.clutter, look.seed)
    index = np.zeros(size, dtype=np.uint8)
    shadow = shadow_style(look.lighting, look.seed, short)
    for number, thing in enumerate(scene.objects, start=1):
        place = Placement(thing)
        patch = silhouette(thing, place)
        windows = _window(patch, size)
        if windows is None:
            continue
        if shadow is not None:
            _draw_shadow(image, patch, shadow)
        there, here = windows
        colours = _paint(thing, patch, place, look, short)[here]
        alpha = patch.alpha[here]
        opacity = alpha.astype(np.float32)[..., None] * np.float32(1 / 255)
        under = image[there]
        image[there] = np.round(under + (colours.astype(np.float32) - under) * opacity).astype(np.uint8)
        index[there][alpha >= 128] = number
    image = develop(light(image, look.lighting, look.seed), look.finish, look.seed)
    return Rendering(image, index)
