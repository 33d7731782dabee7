"""Shared parts of refiners: a cache for the last image, and a loop that checks and skips masks."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from maskselect.ops.images import size_of
from maskselect.ops.masks import not_empty

_T = TypeVar("_T")


class LastImage(Generic[_T]):
    """Caches the result of a function for the last image. The result is not pickled."""

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, _T] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_last": None}

    def __call__(self, image: np.ndarray, compute: Callable[[np.ndarray], _T]) -> _T:
        """`compute(image)`, or the cached result if the image equals the last one."""
        if self._last is None or not np.array_equal(self._last[0], image):
            self._last = None  # frees the memory of the last result first
            self._last = image.copy(), compute(image)
        return self._last[1]


def refine_each(image: np.ndarray, masks: Tensor, refine: Callable[[Tensor], Tensor]) -> Tensor:
    """Refine the masks that have pixels; the others stay empty.

    Args:
        image: (H, W, 3) uint8.
        masks: (M, h, w) bool.
        refine: (K, h, w) bool to (K, H, W) bool, for K >= 1 masks, none of which is empty.

    Returns:
        (M, H, W) bool, on the CPU.

    Raises:
        ValueError: the image or the masks have another shape or dtype.
    """
    size = size_of(image)
    if masks.ndim != 3 or masks.dtype != torch.bool:
        raise ValueError(f"masks must be (M, h, w) bool, got {tuple(masks.shape)} {masks.dtype}")
    masks = masks.cpu()
    out = torch.zeros(len(masks), *size, dtype=torch.bool)
    filled = not_empty(masks)
    if filled.any():
        out[filled] = refine(masks[filled]).cpu()
    return out
