"""LLM-Seg's two heads: how like `[SEG]` a mask is (IoU head), and how much of it lies on the target (IoP head).

Two widths of each: "released", what the published checkpoints hold, and "paper", the three layers of 256, 64 and 1 that
arXiv 2404.08767 states. The released IoU head embeds a mask, to be compared with `[SEG]`; so does ours for "paper",
which does not say how a single number would be compared.

Shape letters: N masks, C channels.
"""

from typing import Literal, cast

from torch import Tensor, nn

HeadForm = Literal["released", "paper"]


class IopHead(nn.Module):
    """Intersection over the candidate's own area, regressed."""

    def __init__(self, channels: int = 256, form: HeadForm = "released") -> None:
        super().__init__()
        widths = [channels // 2] if form == "released" else [256, 64]
        self.layers = _mlp(channels, widths, 1)

    def forward(self, masks: Tensor) -> Tensor:
        """(..., N, C) to (..., N) in (0, 1)."""
        return cast(Tensor, self.layers(masks)[..., 0].sigmoid())


class IouHead(nn.Module):
    """An embedding of each mask that is compared with `[SEG]`'s."""

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
