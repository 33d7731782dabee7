"""`MaskBatch` and `TextBatch`: training batches of pictures with their masks, and of pictures with texts.

The batch of candidate systems, which holds frozen features, is `structures.sample.Batch`.

Shape letters: B images, S side of the square in pixels, M annotated masks of an image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskselect.structures.by_value import ByValue


@dataclass(eq=False, repr=False)
class MaskBatch(ByValue):
    """Pictures and their annotated masks. Not frozen, because Lightning moves batches by writing into them.

    Attributes:
        images: (B, 3, S, S) uint8 RGB, each picture in the middle of a square of zeros.
        sizes: (B, 2) int64, height and width of each picture within its square.
        masks: for each image (M, S, S) bool.
        image_ids: identity of each image.
    """

    images: Tensor
    sizes: Tensor
    masks: list[Tensor]
    image_ids: list[str]

    def index(self) -> Tensor:
        """Masks as index maps (B, S, S) uint8: k + 1 where mask k is, 0 elsewhere; of masks that overlap, the last.

        Raises:
            ValueError: for an image with more than 255 masks.
        """
        most = max(map(len, self.masks))
        if most > 255:
            raise ValueError(f"an image has {most} masks; an index map holds 255")
        rows = [_index_of(masks) for masks in self.masks]
        return torch.stack(rows)


def _index_of(masks: Tensor) -> Tensor:
    index = torch.zeros(masks.shape[-2:], dtype=torch.uint8, device=masks.device)
    for number, mask in enumerate(masks):
        index[mask] = number + 1
    return index


@dataclass(eq=False, repr=False)
class TextBatch(ByValue):
    """Pictures and texts about them. Not frozen, because Lightning moves batches by writing into them.

    Attributes:
        images: (B, 3, S, S) uint8 RGB.
        texts: for each image pairs of question and answer; the question of a caption is "".
        references: for each image and question the reference masks, (R, h, w) bool.
        cells: for each image (P, T) float32, the share of each image token's cell that the answer's masks cover; None
            without.
        kept: for each image the numbers of the image tokens that are read, int64; None for all.
    """

    images: Tensor
    texts: list[list[tuple[str, str]]]
    references: list[list[Tensor]]
    cells: list[Tensor] | None = None
    kept: list[Tensor] | None = None


@dataclass(eq=False, repr=False)
class InstructBatch(ByValue):
    """Key frames with prompts, and the frames around them, for InstructSeg. Not frozen, as above.

    A picture is a key frame without others around it. s is the side of `frames`.

    Attributes:
        frames: (F, 3, s, s) uint8 RGB, all frames of all B items, squares without padding.
        keys: the number of each key frame in `frames`.
        around: for each item the numbers of the frames around its key frame.
        pictures: (B, 3, S, S) uint8, each key frame in the top left corner of a grey square.
        sizes: height and width of each key frame in its square.
        objects: for each item all annotated masks that are visible on its key frame, (M, S, S) bool.
        prompts: for each item its prompts.
        targets: for each item and prompt the numbers of the targets among `objects`.
        references: for each item and prompt the reference masks, (R, h, w) bool over all of their frame.
        reference_frames: for each item and prompt the number of each reference's frame in `frames`.
        replies: for each item and prompt the words that precede the mask in the answer; "" for none.
        words: for each item pairs of question and answer in words.
    """

    frames: Tensor
    keys: list[int]
    around: list[list[int]]
    pictures: Tensor
    sizes: list[tuple[int, int]]
    objects: list[Tensor]
    prompts: list[list[str]]
    targets: list[list[tuple[int, ...]]]
    references: list[list[Tensor]]
    reference_frames: list[list[list[int]]]
    replies: list[list[str]]
    words: list[list[tuple[str, str]]]
