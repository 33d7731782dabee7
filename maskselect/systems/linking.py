"""Links masks of frames to objects over time. This is our addition: RAS and LLM-Seg do not answer on video.

Shape letters: M masks of a frame, O objects, C feature channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.ops.overlap import pairwise_iou
from maskselect.structures.answer import Answer
from maskselect.structures.clip import Clip, ClipMasks

LEAST_AFFINITY = 0.5
"""Minimum of the affinity: IoU with the object's last mask plus cosine similarity of features."""


@dataclass(frozen=True)
class ClipReading:
    """The reading of a clip, whose frames are read one by one in `answer`, so that memory is that of one frame."""

    clip: Clip


def frame_numbers(clip: Clip) -> Iterator[int]:
    """The numbers of all frames, with a line of progress on a terminal."""
    from maskselect.backends.progress import track  # noqa: PLC0415  slow to import

    yield from track(range(len(clip)), len(clip), "Answering", "frames")


class Links:
    """The objects of one prompt in a clip. Only the last mask of an object is stored dense.

    The masks of a frame are assigned to objects one to one with the maximum total affinity (Hungarian algorithm). A
    mask without an object becomes a new object. The IoU counts only for objects of the previous frame; an older object
    is found again by the similarity of its features.

    Args:
        frames: number of frames of the clip.
        size: (h, w) of the masks.
    """

    def __init__(self, frames: int, size: tuple[int, int]) -> None:
        self.masks = ClipMasks(frames, size)
        self.last: list[tuple[int, Tensor, Tensor]] = []
        self.scores: list[list[float]] = []

    def add(self, frame: int, masks: Tensor, scores: Tensor, features: Tensor) -> None:
        """Add the chosen masks of the next frame (M, h, w), scores (M,), and features (M, C) minus the frame mean."""
        assigned = self._assign(frame, masks, features)
        for number, score in enumerate(scores.tolist()):
            last = frame, masks[number], features[number]
            item = assigned.get(number)
            if item is None:
                item = self.masks.add()
                self.last.append(last)
                self.scores.append([])
            self.last[item] = last
            self.scores[item].append(score)
            self.masks.put(item, frame, masks[number], score)

    def _assign(self, frame: int, masks: Tensor, features: Tensor) -> dict[int, int]:
        """The object of each mask that belongs to an earlier one."""
        if not self.last or not len(masks):
            return {}
        overlap = pairwise_iou(masks, torch.stack([mask for _, mask, _ in self.last]))
        recent = torch.tensor([last == frame - 1 for last, _, _ in self.last], dtype=torch.float32)
        known = torch.stack([row for _, _, row in self.last])
        similarity = F.cosine_similarity(features[:, None], known[None], dim=-1).clamp(min=0)
        affinity = overlap * recent + similarity
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  slow to import

        rows, columns = linear_sum_assignment(affinity.numpy(), maximize=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return {row: column for row, column in pairs if affinity[row, column] >= LEAST_AFFINITY}

    def answer(self) -> Answer:
        """The objects by falling mean score over the frames in which they appear."""
        means = torch.tensor([sum(scores) / len(scores) for scores in self.scores], dtype=torch.float32)
        order = torch.sort(means, descending=True, stable=True).indices
        return Answer(self.masks.ordered(order.tolist()), means[order])
