"""Vision-guided multi-granularity text fusion of InstructSeg (arXiv 2412.14006, section 3.3): the text embedding.

The language model's hidden states at the instruction, pooled (global) and one by one (detailed), read the coarsest
features of the picture. The result is a vector; its product with the embedding of a mask is the score of the mask.

    pooled     mean of the hidden states ── pooled_projector ─────────────────────────┐
    latents    [pooled, hidden states] ── text_projector ── perceiver ── read-out ── concatenation ── output

Paper and published code differ in the read-out. In the code only the global latent is a key and a value for the
latents, and only it is read, so detailed latents never change the result (`readout` "global"). The paper fuses both
(`readout` "both"), and does not state how the latents become one vector. Ours: all latents are keys and values, and
the read-out is the mean of the global latent and the average detailed latent. The shapes of all weights are the same.

Shape letters: B rows, L text tokens, D width of the language model, C channels, W inner width, O output width.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from maskselect.tokens.perceiver import Perceiver

TextGranularity = Literal["global", "detailed", "both"]
"""InstructSeg, Table 8: the text latents are the pooled one, one for each token, or both (as in the paper)."""

Readout = Literal["global", "both"]
"""The latents that are read: the global one, as in the published code, or both kinds, as in the paper."""


class TextFusion(nn.Module):
    """Hidden states of an instruction and features of the picture to one vector. The defaults are the published sizes.

    Args:
        text_width: D.
        vision_channels: C.
        width: W.
        out: O, the width of mask embeddings.
        depth, heads, head_width, ff_mult: see `Perceiver`.
        readout: see `Readout`.
        text: see `TextGranularity`. Without a global latent ("detailed") the branch without fusion is left out too,
            because it is the projection of the global text.
        fusion: False replaces all of this by a linear layer on the mean of the hidden states (Table 6); `readout` and
            `text` then do not apply.

    Raises:
        ValueError: for `text` "detailed" with `readout` "global": no latent would be read.
    """

    def __init__(
        self,
        text_width: int,
        vision_channels: int = 1024,
        width: int = 1024,
        out: int = 256,
        depth: int = 3,
        heads: int = 8,
        head_width: int = 128,
        ff_mult: int = 2,
        readout: Readout = "global",
        text: TextGranularity = "both",
        fusion: bool = True,
    ) -> None:
        super().__init__()
        self.readout, self.text, self.fusion = readout, text, fusion
        if not fusion:
            self.output = nn.Linear(text_width, out)
            return
        if text == "detailed" and readout == "global":
            raise ValueError("text 'detailed' has no global latent to read; expected readout 'both'")
        if text != "detailed":
            self.pooled_projector = nn.Linear(text_width, width)
        self.text_projector = nn.Linear(text_width, width)
        self.vision_projector = nn.Conv2d(vision_channels, width, 1)
        self.resampler = Perceiver(width, depth, heads, head_width, ff_mult)
        self.output = nn.Linear(width if text == "detailed" else 2 * width, out)

    def forward(self, text: Tensor, valid: Tensor | None, vision: Tensor) -> Tensor:
        """The text embedding of every row.

        Args:
            text: hidden states at the instruction, (B, L, D) float.
            valid: (B, L) bool, False on padding; None for no padding.
            vision: features of each row's picture, (B, C, h, w) float.

        Returns:
            (B, O) float.
        """
        if valid is None:
            valid = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        pooled = _mean(text, valid)
        if not self.fusion:
            return cast(Tensor, self.output(pooled))
        media = self.vision_projector(vision).flatten(2).transpose(1, 2)
        parts, shown = [], []
        if self.text != "detailed":
            parts.append(pooled[:, None])
            shown.append(torch.ones_like(valid[:, :1]))
        if self.text != "global":
            parts.append(text)
            shown.append(valid)
        real = torch.cat(shown, 1)
        latents = self.text_projector(torch.cat(parts, 1))
        kept = 1 if self.readout == "global" else None
        fused = self._read(self.resampler(media, latents, None, real, kept), real)
        if self.text == "detailed":
            return cast(Tensor, self.output(fused))
        return cast(Tensor, self.output(torch.cat([self.pooled_projector(pooled), fused], -1)))

    def _read(self, latents: Tensor, valid: Tensor) -> Tensor:
        """The latents (B, N, W) as one vector (B, W)."""
        if self.text == "detailed":
            return _mean(latents, valid)
        if self.text == "global" or self.readout == "global":
            return latents[:, 0]
        return (latents[:, 0] + _mean(latents[:, 1:], valid[:, 1:])) / 2


def _mean(tokens: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid tokens: (B, L, D) to (B, D)."""
    weights = valid[..., None].to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
