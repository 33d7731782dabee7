"""`UnionProposer`: joins the pools of several proposers and removes duplicates.

Several detectors together miss fewer objects than each alone; VGent (arXiv 2512.11099) joins candidates, too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.masks import area
from maskselect.ops.overlap import mask_nms
from maskselect.proposers.forwarding import PromptForwarding
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer

Order = Literal["given", "score", "area"]


class UnionProposer(PromptForwarding):
    """A `PromptableProposer` over others.

    Args:
        proposers: proposers in order of trust. The first one that takes boxes and points answers those.
        nms_iou: suppression by mask IoU. The candidate of the earlier proposer stays; within one proposer, that of
            higher score. 1 keeps all.
        order: order of the result: "given" (proposer by proposer), "score" (falling; scores of different proposers may
            not be comparable), or "area" (falling).
        least_area, most_area: limits for the area of a candidate, relative to the image.
        max_candidates: greatest number of candidates, the first in `order`; None for all.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        proposers: Sequence[Proposer],
        nms_iou: float = 0.8,
        order: Order = "given",
        least_area: float = 0.0,
        most_area: float = 1.0,
        max_candidates: int | None = None,
    ) -> None:
        if not proposers:
            raise ValueError("proposers is empty; expected at least one")
        if not (0 < nms_iou <= 1 and 0 <= least_area <= most_area <= 1):
            raise ValueError(
                f"nms_iou {nms_iou}, least_area {least_area}, most_area {most_area}: expected 0 < nms_iou <= 1 and "
                "0 <= least_area <= most_area <= 1"
            )
        if max_candidates is not None and max_candidates < 1:
            raise ValueError(f"max_candidates must be at least 1, got {max_candidates}")
        self.proposers = self._inner = list(proposers)
        self.nms_iou, self.order = nms_iou, order
        self.least_area, self.most_area, self.max_candidates = least_area, most_area, max_candidates

    def cache_key(self) -> str:
        """The key of the inner proposers and all settings."""
        names = ("proposers", "nms_iou", "order", "least_area", "most_area", "max_candidates")
        return cache_key("UnionProposer", **{name: getattr(self, name) for name in names})

    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates at the size of the image, (H, W, 3) uint8. Column "proposer", (N,) int64: its index."""
        pool = self.proposers[0].propose(image)
        owners = [torch.zeros(len(pool), dtype=torch.int64)]
        for number, proposer in enumerate(self.proposers[1:], 1):
            more = proposer.propose(image)
            owners.append(torch.full((len(more),), number, dtype=torch.int64))
            pool = pool.concat(more)
        pool = replace(pool, columns={**pool.columns, "proposer": torch.cat(owners)})
        share = area(pool.masks) / max(1, pool.masks.shape[1] * pool.masks.shape[2])
        pool = pool.keep((share >= self.least_area) & (share <= self.most_area))
        if len(pool):
            pool = pool.keep(mask_nms(pool.masks, _ranks(pool), self.nms_iou).sort().values)
        return pool.keep(self._order_of(pool)[: self.max_candidates])

    def _order_of(self, pool: MaskSet) -> Tensor:
        """Indices (N,) int64."""
        if self.order == "given":
            return torch.arange(len(pool))
        values = pool.scores if self.order == "score" else area(pool.masks)
        return torch.sort(values, descending=True, stable=True).indices


def _ranks(pool: MaskSet) -> Tensor:
    """Numbers (N,) float32 that fall from the best candidate of the first proposer to the worst of the last."""
    order = np.lexsort((-pool.scores.numpy(), pool.columns["proposer"].numpy()))
    ranks = torch.empty(len(pool), dtype=torch.float32)
    ranks[torch.from_numpy(order)] = torch.arange(len(pool), 0, -1, dtype=torch.float32)
    return ranks
