"""Masks of single frames, linked to objects over time. This is ours: neither RAS nor LLM-Seg answers on video.

Shape letters: M masks of a frame, O objects, C feature channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.ops.overlap import pairwise_iou
from maskselect.structures.answer import Answer
from maskselect.structures.clip import ClipMasks

LEAST_AFFINITY = 0.5
"""A mask joins an object when overlap (IoU with its last mask) and likeness (cosine of features) add up to this."""


class Links:
    """The objects of one prompt, frame after frame. Only the last mask of an object is kept dense.

    Masks of a frame join objects one to one, at the highest sum of affinities (Hungarian algorithm). A mask that joins
    none begins a new object. An object that leaves the picture may come back, by its likeness alone.

    Args:
        frames: of the clip.
        size: (h, w) of the masks.
    """

    def __init__(self, frames: int, size: tuple[int, int]) -> None:
        self.masks = ClipMasks(frames, size)
        self.last: list[tuple[int, Tensor, Tensor]] = []
        self.scores: list[list[float]] = []

    def add(self, frame: int, masks: Tensor, scores: Tensor, features: Tensor) -> None:
        """The chosen masks of the next frame: (M, h, w) bool, (M,), (M, C) relative to the mean of the frame."""
        owners = self._owners(frame, masks, features)
        for number, (known, score) in enumerate(zip(owners, scores.tolist(), strict=True)):
            owner = self.masks.add() if known is None else known
            if known is None:
                self.last.append((frame, masks[number], features[number]))
                self.scores.append([])
            self.last[owner] = frame, masks[number], features[number]
            self.scores[owner].append(score)
            self.masks.put(owner, frame, masks[number])

    def _owners(self, frame: int, masks: Tensor, features: Tensor) -> list[int | None]:
        """The object that each mask joins, None for a new one."""
        owners: list[int | None] = [None] * len(masks)
        if not self.last or not len(masks):
            return owners
        overlap = pairwise_iou(masks, torch.stack([mask for _, mask, _ in self.last]))
        recent = torch.tensor([last == frame - 1 for last, _, _ in self.last], dtype=torch.float32)
        known = torch.stack([own for _, _, own in self.last])
        likeness = F.cosine_similarity(features[:, None], known[None], dim=-1).clamp(min=0)
        affinity = overlap * recent + likeness
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  slow to import, and pictures do without

        rows, columns = linear_sum_assignment(affinity.numpy(), maximize=True)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if affinity[row, column] >= LEAST_AFFINITY:
                owners[row] = column
        return owners

    def answer(self) -> Answer:
        """The objects by falling mean score over the frames in which they are there."""
        means = torch.tensor([sum(own) / len(own) for own in self.scores], dtype=torch.float32)
        order = torch.sort(means, descending=True, stable=True).indices
        return Answer(self.masks.ordered(order.tolist()), means[order])
