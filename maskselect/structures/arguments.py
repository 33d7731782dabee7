"""Checks of arguments before any work."""

from numbers import Real

import numpy as np
from torch import Tensor

from maskselect.ops.masks import binary


def checked_threshold(threshold: object) -> float:
    """The threshold as float in [0, 1]. Raises TypeError or ValueError for anything else."""
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise TypeError(f"threshold is of type {type(threshold).__name__}; expected a number between 0 and 1")
    value = float(threshold)
    if not 0 <= value <= 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    return value


def checked_extra(masks: object) -> np.ndarray:
    """A copy of extra candidates as (K, H, W) bool. Raises TypeError or ValueError for anything else."""
    if not isinstance(masks, np.ndarray | Tensor) or masks.ndim != 3:
        form = tuple(getattr(masks, "shape", ())) or type(masks).__name__
        raise TypeError(f"extra_candidates must be an array (K, H, W) bool, got {form}")
    return binary(np.asarray(masks), "extra_candidates")
