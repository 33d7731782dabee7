"""Masks drawn from low-res logits: enlarging is linear, so it is two matrices, and only a mask's own window is
computed.

Shape letters: N masks, l side of the logits, H W pixels drawn.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.ops.masks import filled
from maskselect.proposers.sam_filter import Frame

_CHUNK = 16  # masks that are enlarged whole at a time, where a mask for itself would leave the device idle


class Drawing:
    """From the logits of a frame to masks of `size` pixels (height, width), as `Frame.enlarged` gives them.

    down: (H, l), across: (W, l), float32: how much of each cell is in each pixel, row by row and column by column.
    """

    def __init__(self, frame: Frame, size: tuple[int, int]) -> None:
        self.size = size
        self.down, self.across = (_weights(frame, axis, size[axis]) for axis in (0, 1))
        self._rows, self._columns = _reach(self.down), _reach(self.across)

    def draw(self, low: Tensor) -> Tensor:
        """Logits (N, l, l) to masks (N, H, W) bool, where the enlarged logits are above 0."""
        if low.device.type == "cpu":
            return self._by_window(low.float())
        down, across = self.down.to(low.device), self.across.to(low.device)
        parts = [(down @ part.float() @ across.T) > 0 for part in low.split(_CHUNK)]
        return torch.cat(parts) if parts else torch.zeros(0, *self.size, dtype=torch.bool, device=low.device)

    def _by_window(self, low: Tensor) -> Tensor:
        """Pixels that no cell above 0 reaches are not above 0 and need not be computed."""
        out = torch.zeros(len(low), *self.size, dtype=torch.bool)
        if len(low) == 0:
            return out
        above = low > 0
        rows, columns = filled(above, 2).numpy(), filled(above, 1).numpy()
        for mask, logits, own_rows, own_columns in zip(out, low, rows, columns, strict=True):
            if own_rows.any():
                (y0, y1, a, b), (x0, x1, c, d) = _window(own_rows, self._rows), _window(own_columns, self._columns)
                enlarged = self.down[y0:y1, a:b] @ logits[a:b, c:d] @ self.across[x0:x1, c:d].T
                mask[y0:y1, x0:x1] = enlarged > 0
        return out


@lru_cache(maxsize=64)
def drawing_of(frame: Frame, size: tuple[int, int]) -> Drawing:
    """The drawing of a frame, made once."""
    return Drawing(frame, size)


def _weights(frame: Frame, axis: int, pixels: int) -> Tensor:
    """(pixels, l): what bilinear enlargement along one axis makes of each cell by itself."""
    cells = torch.eye(frame.low, dtype=torch.float32)[None]
    if frame.through_model:
        model = F.interpolate(cells, size=frame.side, mode="linear", align_corners=False)[..., : frame.model_size[axis]]
        enlarged = F.interpolate(model, size=pixels, mode="linear", align_corners=False)
    else:
        enlarged = F.interpolate(cells[..., : frame.low_size[axis]], size=pixels, mode="linear", align_corners=False)
    return enlarged[0].T.contiguous()


def _reach(weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel the first and the last cell that it depends on; both never fall."""
    used = weights.numpy() != 0
    return used.argmax(1), used.shape[1] - 1 - used[:, ::-1].argmax(1)


def _window(own: np.ndarray, reach: tuple[np.ndarray, np.ndarray]) -> tuple[int, int, int, int]:
    """Pixels [p, q) that cells which are `own` reach, and cells [a, b) that those pixels depend on."""
    cells = np.flatnonzero(own)
    first, last = reach
    start, stop = np.searchsorted(last, cells[0]), np.searchsorted(first, cells[-1], side="right")
    if start >= stop:
        return 0, 0, 0, 0
    return int(start), int(stop), int(first[start]), int(last[stop - 1]) + 1
