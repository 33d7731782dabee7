"""Overlays: an image with masks tinted, references outlined, and a caption below."""

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskselect.ops.lettering import Lettering
from maskselect.ops.masks import resize_smooth

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

SHORTEST, LONGEST = 768, 2048
"""Limits for the longer side of the overlay in pixels."""
TINT, REST = 0.45, 0.62
REFERENCE = (255, 0, 200)
_PALETTE: tuple[Colour, ...] = (
    (0, 200, 80), (30, 130, 255), (255, 150, 0), (0, 205, 215),
    (235, 60, 50), (250, 220, 30), (135, 90, 255), (160, 110, 60),
)  # fmt: skip
_WHITE, _GREY, _INK = (255, 255, 255), (170, 170, 178), (24, 24, 30)
_NARROWEST = 360  # least width of a caption in pixels
_LINES = 6  # of a caption


def draw_overlay(
    image: np.ndarray,
    masks: Iterable[np.ndarray],
    labels: Sequence[str],
    references: Iterable[np.ndarray],
    caption: str,
    note: str,
) -> Image.Image:
    """Draw masks, references and a caption on an image.

    The image is darkened a little. Each mask is tinted, outlined and labelled. Each reference is outlined in dashed
    magenta and labelled `ref1`, `ref2`, ….

    Args:
        image: (H, W, 3) uint8. It is not changed.
        masks: (H, W) bool each.
        labels: one for each mask.
        references: (H, W) bool each.
        caption: text below the image. Words that begin with "<ref" have the colour of the references.
        note: one line below the caption.

    Returns:
        An RGB picture of its own size: the longer side of the image is scaled to between SHORTEST and LONGEST, the
        aspect ratio is kept.
    """
    canvas = _scaled(image)
    shown, pointed = ([resize_smooth(mask, canvas.shape[:2]) for mask in some] for some in (masks, references))
    line = max(2, max(canvas.shape[:2]) // 340)
    colours = [colour_of(number) for number in range(len(shown))]
    _dim(canvas, shown + pointed)
    for mask, colour in zip(shown, colours, strict=True):
        tinted = (1 - TINT) * canvas[mask] + TINT * np.array(colour, np.float32)
        canvas[mask] = tinted.astype(np.uint8)
    for mask, colour in zip(shown, colours, strict=True):
        _outline(canvas, mask, colour, line)
    for mask in pointed:
        _dashed_outline(canvas, mask, line)
    picture = Image.fromarray(canvas)
    texts = [*labels, *(f"ref{number}" for number in range(1, len(pointed) + 1))]
    _label(picture, shown + pointed, texts, colours + [REFERENCE] * len(pointed))
    return _captioned(picture, caption, note)


def _dim(canvas: np.ndarray, kept: list[np.ndarray]) -> None:
    """Darken the background, so that a tint is visible on an object of the same colour."""
    if kept:
        rest = ~np.logical_or.reduce(kept)
        canvas[rest] = (canvas[rest] * np.float32(REST)).astype(np.uint8)


def colour_of(number: int) -> Colour:
    """A distinct colour for each number; none is close to the magenta of references."""
    if number < len(_PALETTE):
        return _PALETTE[number]
    hue = (number * 0.618034) % 1.0 * 0.78  # hues above 0.78 are magenta
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (number % 2), 0.95)
    return int(255 * red), int(255 * green), int(255 * blue)


def _scaled(image: np.ndarray) -> np.ndarray:
    """A copy of the image at the size of the overlay."""
    height, width = image.shape[:2]
    longer = max(height, width)
    scale = min(max(longer, SHORTEST), LONGEST) / longer
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return image.copy() if scale == 1 else cv2.resize(image, size, interpolation=how)


def _contours(mask: np.ndarray) -> list[np.ndarray]:
    """Closed outlines, each (P, 2) int32 x, y."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0] for contour in contours]


def _outline(canvas: np.ndarray, mask: np.ndarray, colour: Colour, line: int) -> None:
    """Draw a coloured outline on a dark one, which is visible on any background."""
    contours = _contours(mask)
    cv2.polylines(canvas, contours, True, (0, 0, 0), line + 2, cv2.LINE_AA)
    cv2.polylines(canvas, contours, True, colour, line, cv2.LINE_AA)


def _dashed_outline(canvas: np.ndarray, mask: np.ndarray, line: int) -> None:
    """Draw magenta dashes on white."""
    dash = 5 * line
    contours = _contours(mask)
    cv2.polylines(canvas, contours, True, _WHITE, line + 2, cv2.LINE_AA)
    for contour in contours:
        around = np.concatenate([contour, contour[:1]])
        pieces = [around[start : start + dash] for start in range(0, len(around), 2 * dash)]
        cv2.polylines(canvas, pieces, False, REFERENCE, line + 1, cv2.LINE_AA)


def _label(picture: Image.Image, masks: list[np.ndarray], texts: list[str], colours: list[Colour]) -> None:
    """Draw a label at the thickest part of each mask, moved down if it overlaps another label."""
    draw = ImageDraw.Draw(picture)
    font: Any = ImageFont.load_default(max(13, max(picture.size) // 40))
    taken: list[Box] = []
    for mask, text, colour in zip(masks, texts, colours, strict=True):
        if not mask.any():
            continue
        x, y = _thickest(mask)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        half_width, half_height = (right - left) / 2 + 4, (bottom - top) / 2 + 3
        x = min(max(x, half_width), picture.width - half_width)
        y = min(max(y, half_height), picture.height - half_height)
        for _ in range(4):
            box = (x - half_width, y - half_height, x + half_width, y + half_height)
            if not any(_overlap(box, other) for other in taken) or box[3] + 2 * half_height > picture.height:
                break
            y += 2 * half_height
        taken.append(box)
        draw.rounded_rectangle(box, radius=4, fill=_INK, outline=colour, width=2)
        draw.text((x, y), text, font=font, fill=_WHITE, anchor="mm")


def _thickest(mask: np.ndarray) -> tuple[float, float]:
    """x, y of the pixel with the greatest distance from the outline."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return float(x - 1), float(y - 1)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _captioned(picture: Image.Image, caption: str, note: str) -> Image.Image:
    """The picture on a canvas with the caption and the note below."""
    width = max(picture.width, _NARROWEST)
    size = max(16, min(width // 36, 44))
    letters, small = Lettering(size), Lettering(0.8 * size)
    margin, step = size // 2, round(1.35 * size)
    lines = list(_wrapped(caption, letters, width - 2 * margin))
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], [*lines[_LINES - 1][:-1], "…"]]
    bar = 2 * margin + step * (len(lines) + 1)
    whole = Image.new("RGB", (width, picture.height + bar), _INK)
    whole.paste(picture, ((width - picture.width) // 2, 0))
    space = letters.length(" ")
    for number, words in enumerate(lines):
        x, y = float(margin), picture.height + margin + number * step
        for word in words:
            letters.draw(whole, (x, y), word, REFERENCE if word.startswith("<ref") else _WHITE)
            x += letters.length(word) + space
    small.draw(whole, (margin, picture.height + margin + len(lines) * step), note, _GREY)
    return whole


def _wrapped(text: str, letters: Lettering, width: float) -> Iterator[list[str]]:
    """The words of each line; a word longer than a line is split."""
    words: list[str] = []
    for word in text.split():
        while letters.length(word) > width:
            keep = max(1, int(len(word) * width / letters.length(word)) - 1)
            if words:
                yield words
            yield [word[:keep]]
            words, word = [], word[keep:]  # noqa: PLW2901
        if words and letters.length(" ".join([*words, word])) > width:
            yield words
            words = []
        words.append(word)
    if words:
        yield words
