"""Batches of pictures with masks or texts, for what learns from pixels instead of frozen features.

Shape letters: H, W size of a picture, S side of the square, M annotated masks.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from maskselect.ops.images import resized_image
from maskselect.ops.masks import pad_to_square, resize_nearest
from maskselect.structures.batches import MaskBatch, TextBatch
from maskselect.structures.groups import GroupSource, TextSource, using


@dataclass(frozen=True)
class MaskItem:
    """One picture of a `MaskBatch`; see there for shapes."""

    image: Tensor
    size: tuple[int, int]
    masks: Tensor
    image_id: str


class MaskPreparer:
    """Pictures with all their annotated masks, without prompts.

    Args:
        side: S.
        augment: random brightness, contrast, colour cast, blur and noise, see `photometric`.
    """

    def __init__(self, side: int, augment: bool = False) -> None:
        self.side, self.augment = side, augment

    def prepare(self, source: GroupSource, number: int, rng: np.random.Generator, prompts: int) -> MaskItem:
        """See `structures.protocols.Preparer`; `prompts` has no effect."""
        with using(source, number):
            annotated = source.load(number)
            picture = photometric(annotated.image, rng) if self.augment else annotated.image
            image, size = squared_image(picture, self.side)
            masks = pad_to_square(resize_nearest(annotated.masks, size))
            return MaskItem(image, size, masks, source.image_id(number))

    def collate(self, items: list[MaskItem]) -> MaskBatch:
        """Stack the pictures."""
        return MaskBatch(
            torch.stack([item.image for item in items]),
            torch.tensor([item.size for item in items], dtype=torch.int64),
            [item.masks for item in items],
            [item.image_id for item in items],
        )


@dataclass(frozen=True)
class TextItem:
    """One picture of a `TextBatch`; see there for shapes."""

    image: Tensor
    texts: list[tuple[str, str]]
    references: list[Tensor]
    cells: Tensor | None = None
    kept: Tensor | None = None


def collate_texts(items: list[TextItem]) -> TextBatch:
    """Stack the pictures."""
    images = torch.stack([item.image for item in items])
    cells = [item.cells for item in items if item.cells is not None]
    kept = [item.kept for item in items if item.kept is not None]
    references = [item.references for item in items]
    return TextBatch(images, [item.texts for item in items], references, cells or None, kept or None)


class TextPreparer:
    """Pictures with captions and dialogues.

    Args:
        side: S.
        texts: texts of a picture.
        augment: see `MaskPreparer`.
    """

    def __init__(self, side: int, texts: int, augment: bool = False) -> None:
        self.side, self.texts, self.augment = side, texts, augment

    def prepare(self, source: GroupSource, number: int, rng: np.random.Generator, prompts: int) -> TextItem:
        """See `structures.protocols.Preparer`; `prompts` has no effect.

        Raises:
            TypeError: for a source without texts.
        """
        if not isinstance(source, TextSource):
            raise TypeError(f"{type(source).__name__} has no texts; expected a source of captions or dialogues")
        with using(source, number):
            annotated = source.load(number)
            texts = source.texts(number, annotated.extra, self.texts, rng)
            picture = photometric(annotated.image, rng) if self.augment else annotated.image
            no_references = torch.zeros(0, *picture.shape[:2], dtype=torch.bool)
            return TextItem(squared_image(picture, self.side)[0], texts, [no_references] * len(texts))

    def collate(self, items: list[TextItem]) -> TextBatch:
        """Stack the pictures."""
        return collate_texts(items)


def squared_image(image: np.ndarray, side: int) -> tuple[Tensor, tuple[int, int]]:
    """A picture in the middle of a square: (H, W, 3) uint8 to (3, S, S) uint8, and its size (h, w) therein."""
    scale = side / max(image.shape[:2])
    size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    return pad_to_square(resized_image(image, size)).contiguous(), size


def photometric(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random brightness, contrast, colour cast, blur and noise: (H, W, 3) uint8 to the same.

    It never flips a picture, because "left" would change its meaning.
    """
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.93, 1.07, 3)
    shift = rng.uniform(-30, 30) + rng.uniform(-8, 8, 3)
    table = (np.arange(256)[:, None] - 128) * gain + 128 + shift
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2)))
    if rng.random() < 0.25:
        noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(2, 10))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
