"""Which of SAM's masks stay: predicted IoU, stability and boxes, decided on low-res logits or at full size.

The rules are those of the package's `SamAutomaticMaskGenerator`. It enlarges every mask before it looks at it; deciding
on the decoder's own grid changes about one decision in sixty (stability), and saves nearly all of the work.

Shape letters: N masks, l side of the decoder's logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.masks import upsample_logits

LOW = 4
"""Model pixels a low-res cell."""


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
    """A crop of the image: (height, width) in image pixels and within the model's square of `side` pixels."""

    size: tuple[int, int]
    model_size: tuple[int, int]
    side: int

    @property
    def cells(self) -> tuple[slice, slice, slice]:
        """The part of the logits that is not padding."""
        return slice(None), slice(-(-self.model_size[0] // LOW)), slice(-(-self.model_size[1] // LOW))

    def enlarged(self, low: Tensor) -> Tensor:
        """(N, l, l) logits to (N, *size) float32, in SAM's two steps."""
        height, width = self.model_size
        model = upsample_logits(low.float(), (self.side, self.side))[:, :height, :width]
        return model if self.size == self.model_size else upsample_logits(model, self.size)


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
        """Decided on the logits themselves, padding left out. Boxes are in image pixels."""
        seen = low[frame.cells]
        times = max(1, self.least_side // low.shape[-1])
        if times > 1:
            seen = upsample_logits(seen, (seen.shape[1] * times, seen.shape[2] * times))
        boxes = masks_to_boxes_xyxy(seen > 0)
        shown = boxes[:, 2] > 0
        return self._kept(low, iou, self._stability(seen), boxes * _scale(frame, low.device) / times, shown)

    def by_size(self, low: Tensor, iou: Tensor, frame: Frame) -> Found:
        """Decided at full size, a few masks at a time, as the package does. A box includes its last pixel, as there."""
        stability, boxes = [torch.zeros(0, device=low.device)], [torch.zeros(0, 4, device=low.device)]
        for part in low.split(self.chunk) if len(low) else ():
            full = frame.enlarged(part)
            stability.append(self._stability(full))
            boxes.append(masks_to_boxes_xyxy(full > 0))
        corners = torch.cat(boxes)
        inclusive = corners - torch.tensor([0, 0, 1, 1], device=low.device)
        return self._kept(low, iou, torch.cat(stability), inclusive, corners[:, 2] > 0)

    def _stability(self, logits: Tensor) -> Tensor:
        inner = (logits > self.offset).flatten(1).sum(1)
        outer = (logits > -self.offset).flatten(1).sum(1)
        return inner / outer.clamp(min=1)

    def _kept(self, low: Tensor, iou: Tensor, stability: Tensor, boxes: Tensor, shown: Tensor) -> Found:
        found = Found(low, torch.zeros(len(low), 4, dtype=torch.int64), iou, stability, boxes)
        return found.keep(shown & (stability >= self.threshold) if self.threshold > 0 else shown)


def _scale(frame: Frame, device: torch.device) -> Tensor:
    """From low-res cells to image pixels, for x, y, x, y."""
    across, down = frame.size[1] / frame.model_size[1], frame.size[0] / frame.model_size[0]
    return torch.tensor([across, down, across, down], device=device) * LOW
