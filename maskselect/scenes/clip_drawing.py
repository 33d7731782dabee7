"""Draws a `MovingScene` frame by frame: the pictures, and the index of the visible object at each pixel.

Each object is drawn once by `render.render`, alone on white. Its picture minus the white that shines through is its
premultiplied colour, which is then moved, resized or turned, and blended over the background of every frame.
"""

import hashlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from maskselect.scenes.finish import develop, light, shadow_style
from maskselect.scenes.motion import MovingScene, at_middle, build_clip
from maskselect.scenes.render import render
from maskselect.scenes.shapes import silhouette
from maskselect.scenes.spec import Look, Scene, SceneObject
from maskselect.scenes.stream import drawing_hash

_WHITE = 255


class Sprite(NamedTuple):
    """An object as drawn in one frame.

    Attributes:
        left, top: position of the canvas in the picture, pixels; may be outside.
        colours: (h, w, 3) uint8, premultiplied by the coverage.
        alpha: (h, w) uint8 coverage. A pixel belongs to the object from 128 on.
    """

    left: int
    top: int
    colours: np.ndarray
    alpha: np.ndarray


class ClipDrawing:
    """Draws the frames of a clip on demand. The same clip always gives the same bytes."""

    def __init__(self, scene: MovingScene) -> None:
        self.scene = scene
        self._sprites = [self._drawn(thing) for thing in scene.objects]
        self._veils: dict[int, np.ndarray] = {}

    @cached_property
    def _background(self) -> np.ndarray:
        look = self.scene.look
        bare = Look(look.background, look.outline, "none", "none", look.seed)
        return render(Scene("", self.scene.split, self.scene.image_size, (), (), bare, self.scene.clutter)).image

    @cached_property
    def _shadow(self) -> tuple[int, int, float, float] | None:
        return shadow_style(self.scene.look.lighting, self.scene.look.seed, min(self.scene.image_size))

    def _drawn(self, thing: SceneObject) -> Sprite:
        """An object in the middle of the picture; left and top are relative to the object's centre."""
        size, look = self.scene.image_size, self.scene.look
        thing = at_middle(thing, size)
        alone = Look("white", look.outline, "none", "none", look.seed)
        picture = render(Scene("", self.scene.split, size, (thing,), (), alone, 0)).image
        patch = silhouette(thing)
        height, width = patch.alpha.shape
        part = picture[patch.top : patch.top + height, patch.left : patch.left + width]
        through = cv2.merge([_WHITE - patch.alpha] * 3)
        return Sprite(patch.left - size[1] // 2, patch.top - size[0] // 2, cv2.subtract(part, through), patch.alpha)

    def sprite(self, number: int, frame: int) -> Sprite:
        """Object `number`, from 0, in a frame; it may be outside of the picture or hidden."""
        drawn, track = self._sprites[number], self.scene.tracks[number]
        x, y = track.centre_xy[frame]
        scale, turn = float(track.scale[frame]), float(track.turn[frame])
        if track.motion == "turns":
            drawn = _turned(drawn, turn)
        elif scale != 1.0:
            drawn = _resized(drawn, scale)
        return drawn._replace(left=round(float(x)) + drawn.left, top=round(float(y)) + drawn.top)

    def index(self, frame: int) -> np.ndarray:
        """(H, W) uint8, 0 for background, k + 1 where object k is visible."""
        index = np.zeros(self.scene.image_size, np.uint8)
        for number in range(len(self.scene.objects)):
            there, here = windows(sprite := self.sprite(number, frame), self.scene.image_size)
            index[there][sprite.alpha[here] >= 128] = number + 1
        return index

    def masks(self, frame: int) -> np.ndarray:
        """Visible masks of all objects in a frame, (M, H, W) bool."""
        numbers = np.arange(1, len(self.scene.objects) + 1, dtype=np.uint8)
        return np.asarray(self.index(frame)[None] == numbers[:, None, None])

    def image(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        image, look = self._background.copy(), self.scene.look
        for number in range(len(self.scene.objects)):
            sprite = self.sprite(number, frame)
            there, here = windows(sprite, self.scene.image_size)
            if self._shadow is not None:
                self._cast(image, sprite, number)
            alpha = _WHITE - sprite.alpha[here]
            if alpha.size:
                under = cv2.multiply(image[there], cv2.merge([alpha] * 3), scale=1 / _WHITE)
                image[there] = cv2.add(under, sprite.colours[here])
        return develop(light(image, look.lighting, look.seed), look.finish, look.seed)

    def _cast(self, image: np.ndarray, sprite: Sprite, number: int) -> None:
        """Draw the shadow of a sprite, as in `render.py`."""
        assert self._shadow is not None
        dx, dy, blur, darkness = self._shadow
        rim = int(np.ceil(2 * blur)) + 1
        veil = self._veils.get(number)
        if veil is None:
            alpha = cv2.copyMakeBorder(sprite.alpha, rim, rim, rim, rim, cv2.BORDER_CONSTANT)
            kept = _WHITE - cv2.convertScaleAbs(cv2.GaussianBlur(alpha, (0, 0), blur), alpha=darkness)
            veil = cv2.merge([kept] * 3)
            if self.scene.tracks[number].motion not in ("turns", "grows", "shrinks"):
                self._veils[number] = veil
        shadow = Sprite(sprite.left - rim + dx, sprite.top - rim + dy, veil, veil[..., 0])
        there, here = windows(shadow, self.scene.image_size)
        if veil[here].size:
            image[there] = cv2.multiply(image[there], veil[here], scale=1 / _WHITE)


def windows(sprite: Sprite, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The slices of the picture (H, W) and of a sprite where they overlap; empty slices if they do not."""
    height, width = sprite.alpha.shape
    x0, y0 = max(sprite.left, 0), max(sprite.top, 0)
    x1, y1 = max(min(sprite.left + width, size[1]), x0), max(min(sprite.top + height, size[0]), y0)
    if x0 == x1 or y0 == y1:
        return (slice(0, 0), slice(0, 0)), (slice(0, 0), slice(0, 0))
    here = slice(y0 - sprite.top, y1 - sprite.top), slice(x0 - sprite.left, x1 - sprite.left)
    return (slice(y0, y1), slice(x0, x1)), here


def _resized(sprite: Sprite, scale: float) -> Sprite:
    height, width = sprite.alpha.shape
    size = max(3, round(width * scale)), max(3, round(height * scale))
    colours, alpha = (cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (sprite.colours, sprite.alpha))
    left, top = (sprite.left + width / 2) * scale - size[0] / 2, (sprite.top + height / 2) * scale - size[1] / 2
    return Sprite(round(left), round(top), colours, alpha)


def _turned(sprite: Sprite, degrees: float) -> Sprite:
    """The sprite turned counter-clockwise about its middle."""
    height, width = sprite.alpha.shape
    side = int(np.ceil(np.hypot(height, width))) + 2
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += (side - width) / 2, (side - height) / 2
    colours, alpha = (cv2.warpAffine(one, matrix, (side, side)) for one in (sprite.colours, sprite.alpha))
    left, top = sprite.left + (width - side) / 2, sprite.top + (height - side) / 2
    return Sprite(round(left), round(top), colours, alpha)


@lru_cache(maxsize=4)
def drawing_of(clip_id: str, frames: int) -> ClipDrawing:
    """The drawing of a clip; the last few are kept."""
    return ClipDrawing(build_clip(clip_id, frames))


@lru_cache(maxsize=1)
def motion_hash() -> str:
    """Eight hex digits over the source of all that decides how a clip looks."""
    files = [Path(__file__).parent / f"{name}.py" for name in ("motion", "clip_drawing")]
    return hashlib.sha256(drawing_hash().encode() + b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
