"""Upsamples low-res logits to masks by two matrices, and only within the window of each mask.

Bilinear upsampling is linear and separable, so it is a matrix for each axis.

Shape letters: N masks, l side of the logits, H W pixels of the mask.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.ops.masks import filled
from maskselect.proposers.sam_filter import Frame

_CHUNK = 16  # masks that are upsampled at once on a GPU


class MaskUpsampler:
    """Upsamples logits of a frame to masks of `size` pixels (height, width); the result is `Frame.upsample(low) > 0`.

    Attributes:
        down, across: (H, l) and (W, l) float32, the weight of each cell in each pixel, for rows and columns.
    """

    def __init__(self, frame: Frame, size: tuple[int, int]) -> None:
        self.size = size
        self.down, self.across = (_weights(frame, axis, size[axis]) for axis in (0, 1))
        self._rows, self._columns = _reach(self.down), _reach(self.across)

    def __call__(self, low: Tensor) -> Tensor:
        """Logits (N, l, l) to masks (N, H, W) bool, True where the upsampled logits are above 0."""
        if low.device.type == "cpu":
            return self._by_window(low.float())
        down, across = self.down.to(low.device), self.across.to(low.device)
        parts = [(down @ part.float() @ across.T) > 0 for part in low.split(_CHUNK)]
        return torch.cat(parts) if parts else torch.zeros(0, *self.size, dtype=torch.bool, device=low.device)

    def _by_window(self, low: Tensor) -> Tensor:
        """Skip pixels that depend on no cell above 0, because they cannot be above 0."""
        masks = torch.zeros(len(low), *self.size, dtype=torch.bool)
        if len(low) == 0:
            return masks
        above = low > 0
        rows, columns = filled(above, 2).numpy(), filled(above, 1).numpy()
        for mask, logits, used_rows, used_columns in zip(masks, low, rows, columns, strict=True):
            if used_rows.any():
                (y0, y1, a, b), (x0, x1, c, d) = _window(used_rows, self._rows), _window(used_columns, self._columns)
                mask[y0:y1, x0:x1] = self.down[y0:y1, a:b] @ logits[a:b, c:d] @ self.across[x0:x1, c:d].T > 0
        return masks


mask_upsampler = lru_cache(maxsize=64)(MaskUpsampler)
"""A cached `MaskUpsampler`."""


def _weights(frame: Frame, axis: int, pixels: int) -> Tensor:
    """(pixels, l): bilinear upsampling along one axis, applied to each cell alone."""
    cells = torch.eye(frame.low, dtype=torch.float32)[None]
    if frame.through_model:
        model = F.interpolate(cells, size=frame.side, mode="linear", align_corners=False)
        cells = model[..., : frame.model_size[axis]]
    else:
        cells = cells[..., : frame.low_size[axis]]
    return F.interpolate(cells, size=pixels, mode="linear", align_corners=False)[0].T.contiguous()


def _reach(weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last cell that each pixel depends on; both never fall."""
    used = weights.numpy() != 0
    return used.argmax(1), used.shape[1] - 1 - used[:, ::-1].argmax(1)


def _window(used: np.ndarray, reach: tuple[np.ndarray, np.ndarray]) -> tuple[int, int, int, int]:
    """Pixels [p, q) that depend on `used` cells, and cells [a, b) that these pixels depend on."""
    cells = np.flatnonzero(used)
    first, last = reach
    start, stop = np.searchsorted(last, cells[0]), np.searchsorted(first, cells[-1], side="right")
    if start >= stop:
        return 0, 0, 0, 0
    return int(start), int(stop), int(first[start]), int(last[stop - 1]) + 1
