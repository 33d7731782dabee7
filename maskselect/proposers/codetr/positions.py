"""Where things are: padding, sine positions, reference points and first boxes of a pyramid.

Sources: Zhu et al. 2021 (Deformable DETR, 2010.04159) for valid ratios, references and two-stage proposals; Liu et al.
2022 (DAB-DETR, 2201.12329) for the sine embedding of boxes. Shape letters: B images, L levels, S cells of all levels
together, finest level first and row by row, Q queries. Boxes are (centre x, centre y, width, height) as shares of the
valid part of the canvas; a logit is of each of the four.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_MAP_TEMPERATURE = 20.0
_BOX_TEMPERATURE = 10000.0
_FIRST_SIDE = 0.05  # of the canvas: side of a first box on the finest level, doubled from level to level


@dataclass(frozen=True)
class Layout:
    """The pyramid of a batch.

    shapes: (h, w) of each level.
    paddings: for each level (B, h, w) bool, True on cells that are padding.
    """

    shapes: tuple[tuple[int, int], ...]
    paddings: tuple[Tensor, ...]

    @staticmethod
    def of(padding: Tensor, shapes: list[tuple[int, int]]) -> "Layout":
        """From pixels that are padding, (B, H, W) bool. A cell is what the pixel in its top left corner is."""
        pixels = padding[:, None].float()
        levels = [F.interpolate(pixels, size=shape, mode="nearest")[:, 0] > 0.5 for shape in shapes]
        return Layout(tuple(shapes), tuple(levels))

    @property
    def padding(self) -> Tensor:
        """(B, S) bool."""
        return torch.cat([level.flatten(1) for level in self.paddings], 1)

    @property
    def extents(self) -> Tensor:
        """Columns and rows that are not padding, (B, L, 2) float32. Padding is to the right and below."""
        return torch.stack(
            [torch.stack([(~p[:, 0]).sum(1), (~p[:, :, 0]).sum(1)], 1) for p in self.paddings], 1
        ).float()

    @property
    def valid_ratios(self) -> Tensor:
        """Share of the width and of the height that is not padding, (B, L, 2) float32."""
        sizes = torch.tensor([(w, h) for h, w in self.shapes], dtype=torch.float32, device=self.paddings[0].device)
        return self.extents / sizes

    @property
    def centres(self) -> Tensor:
        """Centre (x, y) of each cell as a share of the valid part, (B, S, 2) float32; above 1 in the padding."""
        device, parts = self.paddings[0].device, []
        for number, (height, width) in enumerate(self.shapes):
            rows, columns = torch.meshgrid(
                torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing="ij"
            )
            parts.append(torch.stack([columns, rows], -1).view(1, -1, 2) / self.extents[:, number, None])
        return torch.cat(parts, 1)

    def references(self) -> Tensor:
        """Where each cell looks on each level, as a share of the whole map: (B, S, L, 2) float32."""
        return self.centres[:, :, None] * self.valid_ratios[:, None]

    def first_boxes(self) -> tuple[Tensor, Tensor]:
        """One box a cell: logits (B, S, 4) float32, infinite where unusable; usable (B, S) bool.

        Padding is unusable, and boxes of which any number is outside (0.01, 0.99).
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
    """Sine position of each cell: (B, h, w) bool, True on padding, to (B, h * w, 2 * features) float32, y before x.

    The last valid cell of each axis is at one full turn (DETR's embedding, temperature 20).
    """
    valid = (~padding).float()
    down, across = valid.cumsum(1), valid.cumsum(2)
    turns = [axis / (last + 1e-6) * (2 * math.pi) for axis, last in ((down, down[:, -1:]), (across, across[:, :, -1:]))]
    return torch.cat([_waves(turn, features, _MAP_TEMPERATURE) for turn in turns], -1).flatten(1, 2)


def embed_boxes(boxes: Tensor, features: int) -> Tensor:
    """Sine embedding of boxes: (..., 4) to (..., 4 * features), in the order y, x, width, height."""
    x, y, width, height = (boxes * (2 * math.pi)).unbind(-1)
    return torch.cat([_waves(number, features, _BOX_TEMPERATURE) for number in (y, x, width, height)], -1)


def _waves(angle: Tensor, features: int, temperature: float) -> Tensor:
    """(...) to (..., features): sines at even, cosines at odd places, two of each frequency."""
    place = torch.arange(features, device=angle.device)
    frequency = temperature ** (2 * torch.div(place, 2, rounding_mode="floor") / features)
    angles = angle[..., None] / frequency
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1).flatten(-2)


def to_logit(share: Tensor, eps: float = 1e-3) -> Tensor:
    """The inverse of the sigmoid; the share and what is left of it are taken as at least `eps`, each by itself."""
    share = share.clamp(0, 1)
    return torch.log(share.clamp(min=eps) / (1 - share).clamp(min=eps))
