"""Positions in a pyramid: padding, sine embeddings, reference points and first boxes.

Sources: Zhu et al. 2021 (Deformable DETR, 2010.04159) for valid ratios, references and two-stage proposals; Liu et al.
2022 (DAB-DETR, 2201.12329) for the sine embedding of boxes. Shape letters: B images, L levels, S cells of all levels
together, finest level first and row by row, Q queries. Boxes are (centre x, centre y, width, height), relative to the
valid part of the canvas; the logit of a box is that of each of the four.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.ops.sampling import sine_waves

_MAP_TEMPERATURE = 20.0
_BOX_TEMPERATURE = 10000.0
_FIRST_SIDE = 0.05  # side of a first box on the finest level, relative to the canvas; doubled at each level


@dataclass(frozen=True)
class Layout:
    """Shapes and padding of the pyramid of a batch.

    Attributes:
        shapes: (h, w) of each level.
        paddings: (B, h, w) bool for each level, True for padding.
    """

    shapes: tuple[tuple[int, int], ...]
    paddings: tuple[Tensor, ...]

    @staticmethod
    def of(padding: Tensor, shapes: list[tuple[int, int]]) -> "Layout":
        """From the padding pixels, (B, H, W) bool. A cell takes the value of the pixel in its top left corner."""
        pixels = padding[:, None].float()
        levels = [F.interpolate(pixels, size=shape, mode="nearest")[:, 0] > 0.5 for shape in shapes]
        return Layout(tuple(shapes), tuple(levels))

    @property
    def padding(self) -> Tensor:
        """(B, S) bool."""
        return torch.cat([level.flatten(1) for level in self.paddings], 1)

    @property
    def extents(self) -> Tensor:
        """Number of valid columns and rows, (B, L, 2) float32. Padding is to the right and below."""
        return torch.stack(
            [torch.stack([(~p[:, 0]).sum(1), (~p[:, :, 0]).sum(1)], 1) for p in self.paddings], 1
        ).float()

    @property
    def valid_ratios(self) -> Tensor:
        """Valid part of the width and of the height, (B, L, 2) float32 in [0, 1]."""
        sizes = torch.tensor([(w, h) for h, w in self.shapes], dtype=torch.float32, device=self.paddings[0].device)
        return self.extents / sizes

    @property
    def centres(self) -> Tensor:
        """Centre (x, y) of each cell relative to the valid part, (B, S, 2) float32; above 1 in the padding."""
        device, parts = self.paddings[0].device, []
        for number, (height, width) in enumerate(self.shapes):
            rows, columns = torch.meshgrid(
                torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing="ij"
            )
            parts.append(torch.stack([columns, rows], -1).view(1, -1, 2) / self.extents[:, number, None])
        return torch.cat(parts, 1)

    def references(self) -> Tensor:
        """Reference point of each cell on each level, relative to the whole map: (B, S, L, 2) float32."""
        return self.centres[:, :, None] * self.valid_ratios[:, None]

    def first_boxes(self) -> tuple[Tensor, Tensor]:
        """One box per cell.

        Returns:
            Logits (B, S, 4) float32, infinite for unusable boxes, and usable (B, S) bool. A box is unusable in the
            padding, or if any of its numbers is outside (0.01, 0.99).
        """
        centres = self.centres
        sides = [
            torch.full((h * w,), _FIRST_SIDE * 2.0**k, dtype=torch.float32) for k, (h, w) in enumerate(self.shapes)
        ]
        side = torch.cat(sides).to(centres.device)[None, :, None].expand(len(centres), -1, 2)
        boxes = torch.cat([centres, side], -1)
        usable = ((boxes > 0.01) & (boxes < 0.99)).all(-1) & ~self.padding
        logits = torch.log(boxes / (1 - boxes)).masked_fill(~usable[..., None], torch.inf)
        return logits, usable


def sine_map(padding: Tensor, features: int) -> Tensor:
    """Sine embedding of each cell: padding (B, h, w) bool to (B, h * w, 2 * features) float32, y before x.

    The last valid cell of each axis is at 2 pi (DETR's embedding, temperature 20).
    """
    valid = (~padding).float()
    down, across = valid.cumsum(1), valid.cumsum(2)
    turns = [axis / (last + 1e-6) * (2 * math.pi) for axis, last in ((down, down[:, -1:]), (across, across[:, :, -1:]))]
    return torch.cat([sine_waves(turn, features, _MAP_TEMPERATURE) for turn in turns], -1).flatten(1, 2)


def embed_boxes(boxes: Tensor, features: int) -> Tensor:
    """Sine embedding of boxes: (..., 4) to (..., 4 * features), in the order y, x, width, height."""
    x, y, width, height = (boxes * (2 * math.pi)).unbind(-1)
    return torch.cat([sine_waves(number, features, _BOX_TEMPERATURE) for number in (y, x, width, height)], -1)


def to_logit(share: Tensor, eps: float = 1e-3) -> Tensor:
    """Inverse sigmoid of numbers clamped to [0, 1]; numerator and denominator are at least `eps`."""
    share = share.clamp(0, 1)
    return torch.log(share.clamp(min=eps) / (1 - share).clamp(min=eps))
