"""Masks to the grid of a codec and back.

Shape letters: N masks, H W pixels, h w cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

Sampling = Literal["nearest", "area", "any"]
"""How a mask is brought to the grid.

nearest: the pixel that Pillow's NEAREST reads; the published rule.
area: a cell belongs to what covers most of it, exact for every size.
any: a cell belongs to a mask that covers any part of it; keeps thin objects.
"""


@dataclass(frozen=True, slots=True)
class DecodedGrid:
    """What a text says, on the codec's grid.

    cells: (h, w) uint16 label numbers, 0 for `others`; of a box-wise codec (N, h, w) bool instances.
    names: the label of number 1, 2, …; of a box-wise codec the label of each instance.
    repairs, unknown, failure: see `maskselect.structures.codec.Decoded`. After a failure all cells are 0.
    """

    cells: np.ndarray
    names: tuple[str, ...]
    repairs: int = 0
    unknown: tuple[str, ...] = ()
    failure: str | None = None


def decode_in_chunks(
    texts: Sequence[str],
    names: Sequence[Sequence[str] | None] | None,
    size: int,
    together: Callable[[Sequence[str], Sequence[Sequence[str] | None]], list[DecodedGrid] | None],
    alone: Callable[[str, Sequence[str] | None], DecodedGrid],
) -> list[DecodedGrid]:
    """Decode canonical texts together; those that are not are found by bisection and decoded alone.

    Args:
        texts: of any kind.
        names: the labels that each text may contain; None if any may.
        size: number of texts that are decoded together.
        together: texts and their labels to grids; None if any text is not canonical.
        alone: one text and its labels to its grid.
    """
    given = [None] * len(texts) if names is None else names

    def decoded(start: int, end: int) -> list[DecodedGrid]:
        found = together(texts[start:end], given[start:end])
        if found is not None:
            return found
        if end - start == 1:
            return [alone(texts[start], given[start])]
        middle = (start + end) // 2
        return decoded(start, middle) + decoded(middle, end)

    starts = range(0, len(texts), size)
    return [grid for start in starts for grid in decoded(start, min(start + size, len(texts)))]


def nearest_indices(source: int, target: int) -> np.ndarray:
    """The source pixels that Pillow's NEAREST reads: (target,) int64.

    Pillow adds the step in float64, one output pixel after another, so that ties fall as its rounding errors do.
    """
    steps = np.full(target, source / target)
    steps[0] /= 2
    return np.minimum(np.add.accumulate(steps).astype(np.int64), source - 1)


@lru_cache(64)
def _coverage(source: int, target: int) -> np.ndarray:
    """The share of each target cell that each source pixel covers: (target, source) float32, rows sum to 1."""
    cells = np.arange(target)[:, None] * (source / target)
    pixels = np.arange(source)[None]
    shared = np.minimum(cells + source / target, pixels + 1) - np.maximum(cells, pixels)
    return (shared.clip(min=0) * (target / source)).astype(np.float32)


def coverage(masks: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The share of each cell that each mask covers: (N, H, W) bool to (N, h, w) float32."""
    rows, columns = (torch.from_numpy(_coverage(*pair)) for pair in zip(masks.shape[1:], grid, strict=True))
    return (rows @ torch.from_numpy(masks).float() @ columns.T).numpy()


def to_grid(masks: np.ndarray, grid: tuple[int, int], sampling: Sampling, keep_small: bool) -> np.ndarray:
    """Each mask by itself on the grid: (N, H, W) bool to (N, h, w) bool.

    Args:
        masks: any size.
        grid: (h, w).
        sampling: see `Sampling`; `area` means more than half of a cell.
        keep_small: a mask that would vanish becomes the cell that contains its centroid.
    """
    if sampling == "nearest":
        rows, columns = (nearest_indices(source, target) for source, target in zip(masks.shape[1:], grid, strict=True))
        cells = masks[:, rows[:, None], columns]
    else:
        cells = coverage(masks, grid) > (0.5 + 1e-6 if sampling == "area" else 1e-6)
    if keep_small:
        for number in np.flatnonzero(masks.any((1, 2)) & ~cells.any((1, 2))):
            cells[number][_centroid_cell(masks[number], grid)] = True
    return cells


def _centroid_cell(mask: np.ndarray, grid: tuple[int, int]) -> tuple[int, int]:
    """The cell that contains the centroid of a mask that is not empty."""
    row, column = ((axis.mean() + 0.5) * g / s for axis, g, s in zip(mask.nonzero(), grid, mask.shape, strict=True))
    return int(row), int(column)


def label_map(masks: np.ndarray, grid: tuple[int, int], sampling: Sampling, keep_small: bool) -> np.ndarray:
    """One number a cell: (N, H, W) bool to (h, w) int64, 0 where no mask is, n + 1 for mask n.

    Where masks overlap, the later one wins. `area` compares what covers each cell, `others` included; `others` wins a
    tie, then the earlier mask.
    """
    pixels = np.zeros(masks.shape[1:], np.int64)
    for number, mask in enumerate(masks):
        pixels[mask] = number + 1
    visible = pixels == np.arange(len(masks) + 1)[:, None, None]
    if sampling == "area":
        cells = np.round(coverage(visible, grid), 5).argmax(0)
    else:
        cells = np.zeros(grid, np.int64)
        for number, inside in enumerate(to_grid(visible[1:], grid, sampling, keep_small=False)):
            cells[inside] = number + 1
    if keep_small:
        vanished = visible.any((1, 2)) & ~np.isin(np.arange(len(visible)), cells)
        for number in (np.flatnonzero(vanished[1:]) + 1).tolist():
            cells[_centroid_cell(visible[number], grid)] = number
    return cells


def upsample(cells: np.ndarray, size: tuple[int, int], through: int | None = None) -> np.ndarray:
    """Nearest upsampling, pixel y reads row floor(y * h / H): (..., h, w) to (..., H, W).

    through: side of a square that the cells are brought to first; None for none.
    """
    if through is not None:
        cells = upsample(cells, (through, through))
    rows, columns = (np.arange(s) * g // s for s, g in zip(size, cells.shape[-2:], strict=True))
    return cells[..., rows[:, None], columns]
