"""Filters SAM's masks by predicted IoU, stability and boxes, on low-res logits or at full size.

The rules are those of the package's `SamAutomaticMaskGenerator`, which upsamples every mask first. Filtering on the
decoder's grid changes about one decision in sixty (stability), and saves nearly all of the work.

Shape letters: N masks, l side of the decoder's logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.masks import area, upsample_logits

_CHUNK = 16  # masks that are upsampled to full size at once


@dataclass(frozen=True)
class LowCandidates:
    """Candidates of one image as low-res logits.

    Attributes:
        low: (N, l, l) logits.
        crops: (N, 4) int64, corners of the crop of each candidate in image pixels.
        iou, stability: (N,) float32.
        boxes: (N, 4) float32, corners in image pixels.
    """

    low: Tensor
    crops: Tensor
    iou: Tensor
    stability: Tensor
    boxes: Tensor

    def keep(self, index: Tensor) -> "LowCandidates":
        """The rows that `index` selects."""
        return LowCandidates(*(values[index] for values in vars(self).values()))

    @staticmethod
    def join(parts: list["LowCandidates"]) -> "LowCandidates":
        """All rows of all parts."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return LowCandidates(*(torch.cat(column) for column in columns))


@dataclass(frozen=True)
class Frame:
    """Position of a crop of the image in the model's square input and in its square logits.

    Attributes:
        size: (height, width) of the crop in image pixels.
        model_size: (height, width) of the crop in the model's square; the rest is padding below and to the right. SAM
            keeps the aspect ratio and pads; SAM 2 stretches the crop to the whole square.
        side: side of the model's square in pixels.
        low: side of the logits in cells.
        through_model: whether logits are upsampled to the model's square first and then to the crop (SAM), or once
            (SAM 2).
    """

    size: tuple[int, int]
    model_size: tuple[int, int]
    side: int
    low: int
    through_model: bool = True

    @property
    def low_size(self) -> tuple[int, int]:
        """(rows, columns) of the logits that are not padding."""
        height, width = (-(-size * self.low // self.side) for size in self.model_size)
        return height, width

    @property
    def cells(self) -> tuple[slice, slice, slice]:
        """The part of the logits that is not padding."""
        return slice(None), slice(self.low_size[0]), slice(self.low_size[1])

    def to_model(self, points: Tensor) -> Tensor:
        """Points (..., 2) in crop pixels, x and y, to pixels of the model's square."""
        scale = self.model_size[1] / self.size[1], self.model_size[0] / self.size[0]
        return points * torch.tensor(scale, dtype=torch.float32, device=points.device)

    def from_low(self, boxes: Tensor) -> Tensor:
        """Corners (..., 4) in cells of the logits to crop pixels."""
        across, down = self.size[1] / self.model_size[1], self.size[0] / self.model_size[0]
        return boxes * (
            torch.tensor([across, down, across, down], dtype=torch.float32, device=boxes.device)
            * (self.side / self.low)
        )

    def upsample(self, low: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Logits (N, l, l) to (N, *size) float32; the default is the size of the crop."""
        size = size or self.size
        if not self.through_model:
            return upsample_logits(low[self.cells].float(), size)
        height, width = self.model_size
        model = upsample_logits(low.float(), (self.side, self.side))[:, :height, :width]
        return model if size == self.model_size else upsample_logits(model, size)


@dataclass(frozen=True)
class StabilityFilter:
    """Keeps masks whose stability is at least `threshold`: the IoU of the masks at logits of +`offset` and -`offset`.

    Attributes:
        threshold: in [0, 1]; 0 switches the filter off.
        offset: of the logits.
        least_side: logits with a smaller side are upsampled to it first; official SAM has 256.
    """

    threshold: float
    offset: float
    least_side: int = 0

    def by_low(self, low: Tensor, iou: Tensor, frame: Frame) -> LowCandidates:
        """Filter on the logits without their padding. Boxes are in crop pixels."""
        cells = low[frame.cells]
        times = max(1, self.least_side // low.shape[-1])
        if times > 1:
            cells = upsample_logits(cells, (cells.shape[1] * times, cells.shape[2] * times))
        boxes = masks_to_boxes_xyxy(cells > 0)
        return self._keep(low, iou, self._stability(cells), frame.from_low(boxes) / times, boxes[:, 2] > 0)

    def by_size(self, low: Tensor, iou: Tensor, frame: Frame) -> LowCandidates:
        """Filter at full size, as the package does. As there, a box includes its last pixel."""
        stability, boxes = [low.new_zeros(0, dtype=torch.float32)], [low.new_zeros(0, 4, dtype=torch.float32)]
        for part in low.split(_CHUNK) if len(low) else ():
            full = frame.upsample(part)
            stability.append(self._stability(full))
            boxes.append(masks_to_boxes_xyxy(full > 0))
        corners = torch.cat(boxes)
        inclusive = corners - torch.tensor([0, 0, 1, 1], dtype=torch.int64, device=low.device)
        return self._keep(low, iou, torch.cat(stability), inclusive, corners[:, 2] > 0)

    def _stability(self, logits: Tensor) -> Tensor:
        return area(logits > self.offset) / area(logits > -self.offset).clamp(min=1)

    def _keep(self, low: Tensor, iou: Tensor, stability: Tensor, boxes: Tensor, nonempty: Tensor) -> LowCandidates:
        crops = torch.zeros(len(low), 4, dtype=torch.int64, device=low.device)
        candidates = LowCandidates(low, crops, iou, stability, boxes)
        return candidates.keep(nonempty & (stability >= self.threshold) if self.threshold > 0 else nonempty)
