"""`AuxiliaryHead`: the one-to-many head on the encoder's cells that gives Co-DETR its name.

Sources: Zong et al. 2023 (Co-DETR, 2211.12860, section 3.2): a head of another kind, assigned in its own way, trains
the encoder along with the decoder and is thrown away afterwards; Zhang et al. 2020 (ATSS, 1912.02424, Algorithm 1) for
the assignment, one of the two that Co-DETR uses. Shape letters: B images, S cells of all levels, G objects.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from maskselect.proposers.codetr.assignment import Targets, corners, pair_loss
from maskselect.proposers.codetr.positions import Layout

_NEAREST = 9  # cells of a level that an object looks at


class AuxiliaryHead(nn.Module):
    """A class and a box for every cell, from the cell alone.

    dim: channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU())
        self.classify, self.regress = nn.Linear(dim, 1), nn.Linear(dim, 4)
        nn.init.constant_(self.classify.bias, -4.0)
        nn.init.zeros_(self.regress.weight)

    def loss(self, memory: Tensor, layout: Layout, targets: list[Targets]) -> dict[str, Tensor]:
        """The losses of `assignment.set_loss`. memory: (B, S, D), the encoder's cells."""
        first, usable = layout.first_boxes()
        x = self.shared(memory)
        boxes = (self.regress(x) + first).sigmoid()
        levels = [height * width for height, width in layout.shapes]
        pairs = []
        for start, good, target in zip(first.sigmoid(), usable, targets, strict=True):
            objects = assign_many(start, good, target.boxes, levels)
            cells = (objects >= 0).nonzero()[:, 0]
            pairs.append((cells, objects[cells]))
        return pair_loss(self.classify(x), boxes, targets, pairs, usable)


@torch.no_grad()
def assign_many(first: Tensor, usable: Tensor, boxes: Tensor, levels: list[int]) -> Tensor:
    """The object that each cell answers for, or -1: (S,) int64.

    first: (S, 4) boxes that cells begin with.  usable: (S,) bool.  boxes: (G, 4) of objects.  levels: cells of each.
    On each level an object looks at the nearest cells. Of all those it takes the ones that overlap it by more than mean
    plus deviation and whose centre is inside. A cell that several objects take belongs to the one it overlaps most.
    """
    if len(boxes) == 0:
        return torch.full_like(usable, -1, dtype=torch.long)
    overlap = box_iou(corners(first), corners(boxes))
    apart = torch.cdist(first[:, :2], boxes[:, :2]).masked_fill(~usable[:, None], torch.inf)
    near, start = torch.zeros_like(overlap, dtype=torch.bool), 0
    for count in levels:
        rows = apart[start : start + count].topk(min(_NEAREST, count), dim=0, largest=False).indices + start
        near.scatter_(0, rows, True)
        start += count
    near &= usable[:, None]
    number = near.sum(0).clamp(min=2)
    mean = (overlap * near).sum(0) / number
    deviation = ((overlap - mean).square() * near).sum(0).div(number - 1).sqrt()
    inside = ((first[:, None, :2] - boxes[:, :2]).abs() * 2 <= boxes[:, 2:]).all(-1)
    taken = near & inside & (overlap >= mean + deviation)
    best, objects = overlap.masked_fill(~taken, -1).max(1)
    return objects.masked_fill(best < 0, -1)
