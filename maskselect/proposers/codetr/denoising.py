"""`Denoising`: decoder queries that begin as shaken boxes of objects, and so know from the first step whose they are.

Sources: Li et al. 2022 (DN-DETR, 2203.01305) for the task; Zhang et al. 2022 (DINO, 2203.03605, section 3.3) for the
pairs of a little shaken box, which must find its object, and a much shaken one, which must be no thing. Co-DINO trains
with them. Here they are a set of their own, decoded apart from the queries that are matched, so no attention mask is
needed: neither set can see the other. Shape letters: B images, K queries, D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from maskselect.proposers.codetr.assignment import Targets, corners, pair_loss
from maskselect.proposers.codetr.positions import Layout
from maskselect.proposers.codetr.queries import QueryHead


@dataclass(frozen=True)
class Shaken:
    """Boxes to begin from, K = 2 * the largest number of objects.

    boxes: (B, K, 4) shares.  pairs: for each image the numbers of queries and of their objects.
    asked: (B, K) bool, False where an image has fewer objects than another one.
    """

    boxes: Tensor
    pairs: list[tuple[Tensor, Tensor]]
    asked: Tensor


class Denoising(nn.Module):
    """The losses of one set of shaken boxes.

    dim: channels of a query.  noise: how far each edge of a box moves at most, in half sides; edges of boxes that must
    be called no thing move between one and two times as far.
    """

    def __init__(self, dim: int, noise: float = 1.0) -> None:
        super().__init__()
        self.noise = noise
        self.content = nn.Parameter(torch.empty(1, dim, dtype=torch.float32).normal_())

    def losses(
        self, head: QueryHead, memory: Tensor, layout: Layout, targets: list[Targets]
    ) -> list[dict[str, Tensor]]:
        """What `set_loss` gives, for each decoder layer; none where no image has an object.

        memory: (B, S, D), the encoder's cells.
        """
        shaken = shake([target.boxes for target in targets], self.noise)
        count = shaken.boxes.shape[1]
        if count == 0:
            return []
        layers = head.decode(memory, self.content.expand(count, -1), shaken.boxes, layout, every_layer=True)
        return [pair_loss(*layer, targets, shaken.pairs, shaken.asked) for layer in zip(*layers, strict=True)]


def shake(boxes: list[Tensor], noise: float) -> Shaken:
    """Boxes (G, 4) of each image, first all a little shaken, then all shaken too much, then what fills up to K."""
    count, device = 2 * max(len(own) for own in boxes), boxes[0].device
    begin = (
        torch.rand(len(boxes), count, 4, dtype=torch.float32, device=device) * 0.5 + 0.25
    )  # what fills up is no box of any object
    asked = torch.zeros(len(boxes), count, dtype=torch.bool, device=device)
    pairs = []
    for number, own in enumerate(boxes):
        far = torch.cat([torch.rand_like(own), 1 + torch.rand_like(own)])
        sign = torch.randint_like(far, 2) * 2 - 1
        edges = corners(own).repeat(2, 1) + far * sign * noise * own[:, 2:].repeat(2, 2) / 2
        x, y = edges[:, 0::2].clamp(0, 1), edges[:, 1::2].clamp(0, 1)
        ordered = torch.stack([x.amin(1), y.amin(1), x.amax(1), y.amax(1)], 1)  # edges may have changed places
        begin[number, : 2 * len(own)] = box_convert(ordered, "xyxy", "cxcywh")
        asked[number, : 2 * len(own)] = True
        pairs.append((torch.arange(len(own), device=device),) * 2)
    return Shaken(begin, pairs, asked)
