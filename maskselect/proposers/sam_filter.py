"""Which of SAM's masks stay: predicted IoU, stability and boxes, decided on low-res logits or at full size.

The rules are those of the package's `SamAutomaticMaskGenerator`. It enlarges every mask before it looks at it; deciding
on the decoder's own grid changes about one decision in sixty (stability), and saves nearly all of the work.

Shape letters: N masks, l side of the decoder's logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.masks import area, upsample_logits


@dataclass(frozen=True)
class Found:
    """Candidates of one image before they are drawn.

    low: (N, l, l) logits; crops: (N, 4) int64, corners of the crop that each came from, image pixels.
    iou, stability: (N,) float32.  boxes: (N, 4) float32, corners in image pixels.
    """

    low: Tensor
    crops: Tensor
    iou: Tensor
    stability: Tensor
    boxes: Tensor

    def keep(self, index: Tensor) -> "Found":
        """The rows that `index` names."""
        return Found(self.low[index], self.crops[index], self.iou[index], self.stability[index], self.boxes[index])

    @staticmethod
    def join(parts: list["Found"]) -> "Found":
        """All rows of all parts."""
        names = ("low", "crops", "iou", "stability", "boxes")
        return Found(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Frame:
    """How a crop of the image lies in the square that a model reads, and in the square of its logits.

    size: (height, width) of the crop in image pixels.
    model_size: (height, width) that it takes in the model's square; the rest is padding below and to the right. SAM
        keeps the crop's aspect and pads, SAM 2 squashes it to the whole square.
    side: of the model's square, pixels.  low: side of the logits, cells.
    through_model: logits are enlarged to the model's square first and to the crop's size from there, as SAM does; SAM 2
        enlarges once.
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
        """(..., 2) pixels of the crop, x and y, to pixels of the model's square."""
        scale = self.model_size[1] / self.size[1], self.model_size[0] / self.size[0]
        return points * torch.tensor(scale, dtype=torch.float32, device=points.device)

    def from_low(self, boxes: Tensor) -> Tensor:
        """(..., 4) corners in low-res cells to pixels of the crop."""
        across, down = self.size[1] / self.model_size[1], self.size[0] / self.model_size[0]
        return boxes * (
            torch.tensor([across, down, across, down], dtype=torch.float32, device=boxes.device)
            * (self.side / self.low)
        )

    def enlarged(self, low: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, l, l) logits to (N, *size) float32; the crop's own size if none is given."""
        size = size or self.size
        if not self.through_model:
            return upsample_logits(low[self.cells].float(), size)
        height, width = self.model_size
        model = upsample_logits(low.float(), (self.side, self.side))[:, :height, :width]
        return model if size == self.model_size else upsample_logits(model, size)


@dataclass(frozen=True)
class StabilityFilter:
    """Masks stay when shifting their threshold by `offset` changes little: the share is at least `threshold`.

    threshold: in [0, 1]; 0 switches it off.
    least_side: logits of a smaller side are enlarged to it before they are judged; official SAM has 256.
    chunk: masks that are enlarged at a time, in exact mode.
    """

    threshold: float
    offset: float
    least_side: int = 0
    chunk: int = 16

    def by_low(self, low: Tensor, iou: Tensor, frame: Frame) -> Found:
        """Decided on the logits themselves, padding left out. Boxes are in pixels of the crop."""
        seen = low[frame.cells]
        times = max(1, self.least_side // low.shape[-1])
        if times > 1:
            seen = upsample_logits(seen, (seen.shape[1] * times, seen.shape[2] * times))
        boxes = masks_to_boxes_xyxy(seen > 0)
        shown = boxes[:, 2] > 0
        return self._kept(low, iou, self._stability(seen), frame.from_low(boxes) / times, shown)

    def by_size(self, low: Tensor, iou: Tensor, frame: Frame) -> Found:
        """Decided at full size, a few masks at a time, as the package does. A box includes its last pixel, as there."""
        stability, boxes = (
            [torch.zeros(0, dtype=torch.float32, device=low.device)],
            [torch.zeros(0, 4, dtype=torch.float32, device=low.device)],
        )
        for part in low.split(self.chunk) if len(low) else ():
            full = frame.enlarged(part)
            stability.append(self._stability(full))
            boxes.append(masks_to_boxes_xyxy(full > 0))
        corners = torch.cat(boxes)
        inclusive = corners - torch.tensor([0, 0, 1, 1], dtype=torch.int64, device=low.device)
        return self._kept(low, iou, torch.cat(stability), inclusive, corners[:, 2] > 0)

    def _stability(self, logits: Tensor) -> Tensor:
        return area(logits > self.offset) / area(logits > -self.offset).clamp(min=1)

    def _kept(self, low: Tensor, iou: Tensor, stability: Tensor, boxes: Tensor, shown: Tensor) -> Found:
        crops = torch.zeros(len(low), 4, dtype=torch.int64, device=low.device)
        found = Found(low, crops, iou, stability, boxes)
        return found.keep(shown & (stability >= self.threshold) if self.threshold > 0 else shown)
