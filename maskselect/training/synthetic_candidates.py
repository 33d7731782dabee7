"""Synthetic candidates, made from annotated masks instead of by a proposer.

A proposer takes far more time than all other frozen parts of a system. Most of what a language model learns from
millions of prompts does not depend on exact outlines. So it first trains on masks with a proposer's typical errors:
wavy outlines, halves and pieces of objects, two objects in one mask, missed objects. A short run with the proposer's
candidates follows.

Shape letters: M annotated masks, H, W image.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.overlap import pairwise_iou
from maskselect.structures.masks import MaskSet


@dataclass(frozen=True)
class SyntheticCandidates:
    """Makes synthetic candidates with random errors.

    The default rates are those of the compact SAM with snapping on scenes (300 train scenes: per object 0.60 candidates
    of IoU 0.5 to 0.7 and 0.89 below 0.5; 0.14 of the objects have none of IoU 0.7).

    Args:
        missed: share of objects without a good candidate.
        halves, pieces, unions: expected number of each, per object.
        wave: standard deviation of the noise that bends outlines, in units of the coarse mask's values (0 to 1).
        grid: longer side of the coarse grid on which outlines are bent, in cells.
    """

    missed: float = 0.1
    halves: float = 0.6
    pieces: float = 0.6
    unions: float = 0.3
    wave: float = 0.14
    grid: int = 64

    def cache_key(self) -> str:
        """See `structures.protocols.Cacheable`."""
        return cache_key("SyntheticCandidates", **vars(self))

    def propose(self, masks: Tensor, rng: np.random.Generator) -> MaskSet:
        """(M, H, W) bool to candidates, whose scores increase with their best IoU, as a proposer's do."""
        size = (masks.shape[-2], masks.shape[-1])
        drawn = [mask for number in range(len(masks)) for mask in self._of_object(masks, number, rng) if mask.any()]
        if not drawn:
            return MaskSet(torch.zeros(0, *size, dtype=torch.bool), torch.zeros(0), "synthetic")
        bent = self._bend(torch.stack(drawn), rng)
        bent = bent[bent.any(-1).any(-1)]
        best = pairwise_iou(bent, masks).amax(1) if len(bent) else torch.zeros(0)
        noise = torch.from_numpy(rng.normal(0, 0.1, len(bent))).float()
        return MaskSet(bent, (0.3 + 0.55 * best + noise).clamp(0.05, 0.99), "synthetic")

    def _of_object(self, masks: Tensor, number: int, rng: np.random.Generator) -> list[Tensor]:
        mask = masks[number]
        out = [] if rng.random() < self.missed else [mask]
        out += [_cut(mask, rng.uniform(0.45, 0.75), rng) for _ in range(rng.poisson(self.halves))]
        out += [_cut(mask, rng.uniform(0.1, 0.45), rng) for _ in range(rng.poisson(self.pieces))]
        if len(masks) > 1:
            out += [mask | masks[_neighbour(masks, number, rng)] for _ in range(rng.poisson(self.unions))]
        return out

    def _bend(self, masks: Tensor, rng: np.random.Generator) -> Tensor:
        height, width = masks.shape[-2:]
        cells = self.grid / max(height, width)
        coarse_size = (max(1, round(height * cells)), max(1, round(width * cells)))
        coarse = F.interpolate(masks[:, None].float(), coarse_size, mode="area")
        rough = torch.from_numpy(rng.normal(0, self.wave, (len(masks), 1, 16, 16))).float()
        wave = F.interpolate(rough, coarse_size, mode="bicubic", align_corners=False)
        # The noise moves only the soft edge of the coarse mask, not its inside or outside.
        return F.interpolate(coarse + wave, (height, width), mode="bilinear", align_corners=False)[:, 0] > 0.5


def _cut(mask: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """The part of a mask on one side of a line in a random direction, about `share` of its pixels."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    if len(rows) == 0:
        return mask
    angle = rng.uniform(0, 2 * np.pi)
    along = rows * float(np.sin(angle)) + columns * float(np.cos(angle))
    chosen = along <= along.kthvalue(max(1, round(share * len(along)))).values
    out = torch.zeros_like(mask)
    out[rows[chosen], columns[chosen]] = True
    return out


def _neighbour(masks: Tensor, number: int, rng: np.random.Generator) -> int:
    """One of the two masks whose centres are nearest to that of mask `number`."""
    grid = [torch.arange(n, dtype=torch.float32) for n in masks.shape[-2:]]
    area = masks.sum((1, 2)).clamp(min=1)
    centres = torch.stack([(masks.sum(2) * grid[0]).sum(1), (masks.sum(1) * grid[1]).sum(1)], 1) / area[:, None]
    distances = (centres - centres[number]).norm(dim=1)
    distances[number] = torch.inf
    return int(distances.argsort()[int(rng.integers(min(2, len(masks) - 1)))])
