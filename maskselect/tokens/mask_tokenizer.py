"""Mask tokens: pooled features projected to the width of the language model, and their pre-tokens."""

from typing import Literal, cast

import torch
from torch import Tensor, distributed, nn

PreTokens = Literal["none", "same", "different"]
"""RAS, Table C: no pre-token, one for both candidates and references, or one for each (as in the paper)."""


class MaskTokenizer(nn.Module):
    """Two-layer MLP projector and the learnable `<mask-pool-pre>` and `<mask-ref-pre>` (RAS, section 3.2).

    Features of different encoders differ in scale by orders of magnitude, so they are standardised first. Statistics
    come from the first batch of the first stage, and are stored as buffers.

    Args:
        channels: C of the pooled features.
        width: D of the language model.
        pre_tokens: the kinds of pre-tokens.
        standardise: standardise each channel. This is our addition; False projects features as they are, as in the
            paper.
    """

    def __init__(
        self, channels: int, width: int, pre_tokens: PreTokens = "different", standardise: bool = True
    ) -> None:
        super().__init__()
        self.standardise = standardise
        self.mean: Tensor
        self.scale: Tensor
        self.fitted: Tensor
        self.register_buffer("mean", torch.zeros(channels, dtype=torch.float32))
        self.register_buffer("scale", torch.ones(channels, dtype=torch.float32))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.projector = nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))
        self.pre_tokens = pre_tokens
        rows = {"none": 0, "same": 1, "different": 2}[pre_tokens]
        self.pre = nn.Parameter(torch.randn(rows, width, dtype=torch.float32) * 0.02)

    def forward(self, features: Tensor) -> Tensor:
        """(..., C) to mask tokens (..., D)."""
        return cast(Tensor, self.projector(self.standardised(features)))

    def standardised(self, features: Tensor) -> Tensor:
        """Standardised features, (..., C); the same features without `standardise`."""
        return (features - self.mean) * self.scale if self.standardise else features

    @torch.no_grad()
    def fit_statistics(self, features: Tensor) -> None:
        """Compute mean and deviation of `features`, (M, C), over all processes. Later calls have no effect.

        A channel that hardly varies is centred but not scaled. Without `standardise` there is nothing to compute.
        """
        if bool(self.fitted) or not self.standardise:
            return
        values = features.double()
        count, total, squares = _over_processes(
            values.new_full((1,), len(values)), values.sum(0), values.square().sum(0)
        )
        if count < 2:
            return
        mean = total / count
        deviation = ((squares / count - mean.square()).clamp(min=0) * count / (count - 1)).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-3, 1 / deviation.clamp(min=1e-3), 1.0))
        self.fitted.fill_(True)

    @property
    def pool_pre(self) -> Tensor | None:
        """`<mask-pool-pre>`, (D,), or None."""
        return self.pre[0] if len(self.pre) else None

    @property
    def ref_pre(self) -> Tensor | None:
        """`<mask-ref-pre>`, (D,), or None."""
        return self.pre[-1] if len(self.pre) else None


def _over_processes(*sums: Tensor) -> list[Tensor]:
    """Sums over all processes of a run."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(sums)
    joined = torch.cat(sums)
    distributed.all_reduce(joined)
    return list(joined.split([len(part) for part in sums]))


class NoMaskTokens(nn.Module):
    """Replaces a `MaskTokenizer` in a system that reads no masks. It has no parameters.

    Args:
        width: D of the language model.
    """

    pool_pre = ref_pre = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        """(..., 0, C) to (..., 0, D). Raises ValueError for any mask."""
        if features.numel():
            raise ValueError("this model was built without mask tokens; its prompts may not point at masks")
        return features.new_zeros(*features.shape[:-1], self.width)

    def standardised(self, features: Tensor) -> Tensor:
        """The unchanged features."""
        return features

    def fit_statistics(self, features: Tensor) -> None:
        """Do nothing."""
