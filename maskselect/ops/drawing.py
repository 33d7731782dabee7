"""A mask group as a picture: what was chosen, what was pointed at, and what was asked."""

import colorsys
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskselect.ops.masks import resize_smooth
from maskselect.reports.lettering import Lettering
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import MASK_REF

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

SHORTEST, LONGEST = 768, 2048
"""The drawn image's longer side in pixels: small ones are enlarged until text is legible, huge ones reduced."""
TINT, REST = 0.45, 0.62
REFERENCE = (255, 0, 200)
_PALETTE: tuple[Colour, ...] = (
    (0, 200, 80), (30, 130, 255), (255, 150, 0), (0, 205, 215),
    (235, 60, 50), (250, 220, 30), (135, 90, 255), (160, 110, 60),
)  # fmt: skip
_WHITE, _GREY, _INK = (255, 255, 255), (170, 170, 178), (24, 24, 30)
_NARROWEST = 360  # px, so that a caption under a very tall picture still has room
_LINES = 6  # of caption


def draw_overlay(group: MaskGroup) -> Image.Image:
    """The image, a little darkened, with each chosen mask tinted, outlined and labelled with its score, each reference
    outlined in dashed magenta and labelled `ref1`, `ref2`, …, and the prompt as a caption below.

    The picture has its own size: the image's longer side is brought to between SHORTEST and LONGEST, aspect kept.
    """
    canvas, masks, references = _scaled(group)
    line = max(2, max(canvas.shape[:2]) // 340)
    colours = [_colour(number) for number in range(len(masks))]
    _dim(canvas, masks + references)
    for mask, colour in zip(masks, colours, strict=True):
        tinted = (1 - TINT) * canvas[mask] + TINT * np.array(colour, np.float32)
        canvas[mask] = tinted.astype(np.uint8)
    for mask, colour in zip(masks, colours, strict=True):
        _outline(canvas, mask, colour, line)
    for mask in references:
        _dashed_outline(canvas, mask, line)
    picture = Image.fromarray(canvas)
    texts = [f"{score:.2f}" for score in group.scores] + [f"ref{n}" for n in range(1, len(references) + 1)]
    _label(picture, masks + references, texts, colours + [REFERENCE] * len(references))
    return _captioned(picture, group)


def _dim(canvas: np.ndarray, kept: list[np.ndarray]) -> None:
    """Darkens the rest a little: a green tint on a green thing would not be seen without."""
    if kept:
        rest = ~np.logical_or.reduce(kept)
        canvas[rest] = (canvas[rest] * np.float32(REST)).astype(np.uint8)


def _colour(number: int) -> Colour:
    """Distinct colours without end; none is close to the references' magenta."""
    if number < len(_PALETTE):
        return _PALETTE[number]
    hue = (number * 0.618034) % 1.0 * 0.78  # hues above 0.78 are magenta
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (number % 2), 0.95)
    return int(255 * red), int(255 * green), int(255 * blue)


def _scaled(group: MaskGroup) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Image, chosen masks and references at the size of drawing; the image is a copy."""
    height, width = group.image.shape[:2]
    longer = max(height, width)
    scale = min(max(longer, SHORTEST), LONGEST) / longer
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = group.image.copy() if scale == 1 else cv2.resize(group.image, size, interpolation=how)

    masks, references = ([resize_smooth(m, size[::-1]) for m in packed] for packed in (group, group.packed_references))
    return image, masks, references


def _contours(mask: np.ndarray) -> list[np.ndarray]:
    """Closed outlines, each (P, 2) int32 x, y. Padded, so that a mask at the image's edge has its outline inside."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0] for contour in found]


def _outline(canvas: np.ndarray, mask: np.ndarray, colour: Colour, line: int) -> None:
    """Dark below, coloured above, so that it shows on any background."""
    contours = _contours(mask)
    cv2.polylines(canvas, contours, True, (0, 0, 0), line + 2, cv2.LINE_AA)
    cv2.polylines(canvas, contours, True, colour, line, cv2.LINE_AA)


def _dashed_outline(canvas: np.ndarray, mask: np.ndarray, line: int) -> None:
    """Magenta dashes on white."""
    dash = 5 * line
    contours = _contours(mask)
    cv2.polylines(canvas, contours, True, _WHITE, line + 2, cv2.LINE_AA)
    for contour in contours:
        around = np.concatenate([contour, contour[:1]])
        pieces = [around[start : start + dash] for start in range(0, len(around), 2 * dash)]
        cv2.polylines(canvas, pieces, False, REFERENCE, line + 1, cv2.LINE_AA)


def _label(picture: Image.Image, masks: list[np.ndarray], texts: list[str], colours: list[Colour]) -> None:
    """A small plate on each mask, at its thickest spot; moved down where another label is in the way."""
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
            if not any(_touch(box, other) for other in taken) or box[3] + 2 * half_height > picture.height:
                break
            y += 2 * half_height
        taken.append(box)
        draw.rounded_rectangle(box, radius=4, fill=_INK, outline=colour, width=2)
        draw.text((x, y), text, font=font, fill=_WHITE, anchor="mm")


def _thickest(mask: np.ndarray) -> tuple[float, float]:
    """x, y of the pixel furthest from the mask's edge."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return float(x - 1), float(y - 1)


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _captioned(picture: Image.Image, group: MaskGroup) -> Image.Image:
    """On a canvas with the prompt and what came of it below."""
    width = max(picture.width, _NARROWEST)
    size = max(16, min(width // 36, 44))
    letters, small = Lettering(size), Lettering(0.8 * size)
    margin, step = size // 2, round(1.35 * size)
    lines = list(_wrapped(_numbered(group.prompt), letters, width - 2 * margin))
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
    small.draw(whole, (margin, picture.height + margin + len(lines) * step), _outcome(group), _GREY)
    return whole


def _numbered(prompt: str) -> str:
    """Each `<mask-ref>` as `<ref1>`, `<ref2>`, …, as the references are labelled."""
    parts = prompt.split(MASK_REF)
    return parts[0] + "".join(f"<ref{number}>{part}" for number, part in enumerate(parts[1:], start=1))


def _wrapped(text: str, letters: Lettering, width: float) -> Iterator[list[str]]:
    """Words by line; a word longer than a line is cut."""
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


def _outcome(group: MaskGroup) -> str:
    found = "nothing in the image answers this" if group.no_target else f"{len(group)} mask(s)"
    if group.candidates is None or group.threshold is None:
        return found if group.failure is None else group.failure
    of = f"{group.candidates} candidates, threshold {group.threshold:.2f}"
    return f"{found} ({of})" if group.no_target else f"{len(group)} of {of}"
