"""LLM-Seg's two heads: similarity of a mask to `[SEG]` (IoU head), and the part of it on the target (IoP head).

Each has two forms: "released", the widths of the published checkpoints, and "paper", the three layers of 256, 64 and 1
in arXiv 2404.08767. In both forms the IoU head embeds a mask for a comparison with `[SEG]`, as the released one does;
the paper does not explain how to compare a single number.

Shape letters: N masks, C channels.
"""

from typing import Literal, cast

from torch import Tensor, nn

HeadForm = Literal["released", "paper"]


class IopHead(nn.Module):
    """Regresses the intersection over the area of the candidate."""

    def __init__(self, channels: int = 256, form: HeadForm = "released") -> None:
        super().__init__()
        widths = [channels // 2] if form == "released" else [256, 64]
        self.layers = _mlp(channels, widths, 1)

    def forward(self, masks: Tensor) -> Tensor:
        """(..., N, C) to (..., N) in (0, 1)."""
        return cast(Tensor, self.layers(masks)[..., 0].sigmoid())


class IouHead(nn.Module):
    """Embeds each mask for a comparison with the embedding of `[SEG]`."""

    def __init__(self, channels: int = 256, form: HeadForm = "released") -> None:
        super().__init__()
        widths = [channels * 8] if form == "released" else [256, 64]
        self.layers = _mlp(channels, widths, channels)

    def forward(self, masks: Tensor) -> Tensor:
        """(..., N, C) to (..., N, C)."""
        return cast(Tensor, self.layers(masks))


def _mlp(channels: int, hidden: list[int], out: int) -> nn.Sequential:
    widths = [channels, *hidden]
    layers: list[nn.Module] = []
    for before, after in zip(widths, hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out))
