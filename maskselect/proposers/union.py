"""`UnionProposer`: the pools of several proposers as one, without what they found twice.

Several detectors together miss less than any of them; the newest work on this task (VGent, arXiv 2512.11099) joins the
candidates of some.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.masks import area
from maskselect.ops.overlap import mask_nms
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer, Proposer

Order = Literal["given", "score", "area"]


class UnionProposer:
    """A `PromptableProposer` over others.

    Args:
        proposers: whose candidates are joined, the most trusted first; the first that takes boxes and points answers
            those.
        nms_iou: of two candidates that overlap more, the one of the earlier proposer stays; within one, the better
            scored. 1 keeps all.
        order: of the result: "given" (proposer by proposer, as each gave them), "score" (falling; scores of different
            proposers need not mean the same), or "area" (falling).
        least_area, most_area: share of the image that a candidate may cover, at least and at most.
        max_candidates: at most so many, the first in `order`; None for all.

    Raises ValueError for numbers that cannot be.
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
            told = f"nms_iou {nms_iou}, least_area {least_area}, most_area {most_area}"
            raise ValueError(f"{told}: expected 0 < nms_iou <= 1 and 0 <= least_area <= most_area <= 1")
        if max_candidates is not None and max_candidates < 1:
            raise ValueError(f"max_candidates must be at least 1, got {max_candidates}")
        self.proposers = list(proposers)
        self.nms_iou, self.order = nms_iou, order
        self.least_area, self.most_area, self.max_candidates = least_area, most_area, max_candidates

    def cache_key(self) -> str:
        """Of the inner proposers and all settings."""
        names = ("proposers", "nms_iou", "order", "least_area", "most_area", "max_candidates")
        return cache_key("UnionProposer", **{name: getattr(self, name) for name in names})

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to candidates at the image's own size; column "proposer", (N,) int64, tells whose each is."""
        found = self.proposers[0].propose(image)
        owners = [torch.zeros(len(found), dtype=torch.int64)]
        for number, proposer in enumerate(self.proposers[1:], 1):
            more = proposer.propose(image)
            owners.append(torch.full((len(more),), number, dtype=torch.int64))
            found = found.concat(more)
        joined = MaskSet(found.masks, found.scores, found.source, {**found.columns, "proposer": torch.cat(owners)})
        joined = joined.keep(self._of_fair_size(joined.masks))
        kept = (
            mask_nms(joined.masks, _ranks(joined), self.nms_iou) if len(joined) else torch.zeros(0, dtype=torch.int64)
        )
        joined = joined.keep(kept.sort().values)
        return joined.keep(self._ordered(joined)[: self.max_candidates])

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask inside a box given in pixels: (H, W) bool. Raises ValueError when no proposer takes boxes."""
        return self._promptable().segment_box(image, box_xyxy)

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks inside boxes (K, 4) given in pixels. Raises ValueError when no proposer takes boxes."""
        return self._promptable().segment_boxes(image, boxes_xyxy)

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask under a point given in pixels: (H, W) bool. Raises ValueError when no proposer takes points."""
        return self._promptable().segment_point(image, point_xy)

    def _promptable(self) -> PromptableProposer:
        for proposer in self.proposers:
            if isinstance(proposer, PromptableProposer):
                return proposer
        names = ", ".join(type(proposer).__name__ for proposer in self.proposers)
        raise ValueError(f"none of {names} can turn a box or point into a mask; give a mask instead")

    def _of_fair_size(self, masks: Tensor) -> Tensor:
        """(N,) bool."""
        share = area(masks) / max(1, masks.shape[1] * masks.shape[2])
        return (share >= self.least_area) & (share <= self.most_area)

    def _ordered(self, found: MaskSet) -> Tensor:
        """(N,) int64."""
        if self.order == "given":
            return torch.arange(len(found))
        by = found.scores if self.order == "score" else area(found.masks)
        return torch.sort(by, descending=True, stable=True).indices


def _ranks(found: MaskSet) -> Tensor:
    """Numbers that fall from the best of the first proposer to the worst of the last: (N,) float32."""
    order = np.lexsort((-found.scores.numpy(), found.columns["proposer"].numpy()))
    ranks = torch.empty(len(found), dtype=torch.float32)
    ranks[torch.from_numpy(order)] = torch.arange(len(found), 0, -1, dtype=torch.float32)
    return ranks
