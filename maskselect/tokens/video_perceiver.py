"""The object-aware video perceiver of InstructSeg (arXiv 2412.14006, section 3.2): frames to a few tokens each.

Learned queries read the image tokens of a frame and the text embeddings of the instruction. Every frame is read alone
and by the same queries; nothing marks the time of a frame. An image is its own only frame.

Shape letters: B rows, T frames, M image tokens of a frame, L text tokens, N queries, D width.
"""

import torch
from torch import Tensor, nn

from maskselect.tokens.perceiver import Perceiver


class VideoPerceiver(nn.Module):
    """Turns each frame into N tokens. The defaults are the published sizes.

    Args:
        width: D of the language model.
        queries: N.
        depth, heads, head_width, ff_mult: see `Perceiver`.

    Attributes:
        tokens: N.
    """

    def __init__(
        self,
        width: int,
        queries: int = 128,
        depth: int = 3,
        heads: int = 8,
        head_width: int = 128,
        ff_mult: int = 2,
    ) -> None:
        super().__init__()
        self.tokens = queries
        self.queries = nn.Parameter(torch.randn(queries, width, dtype=torch.float32))
        self.resampler = Perceiver(width, depth, heads, head_width, ff_mult)

    def forward(self, frames: Tensor, text: Tensor | None = None, text_valid: Tensor | None = None) -> Tensor:
        """The tokens of all frames, frame by frame.

        Args:
            frames: image tokens, (B, T, M, D) float.
            text: token embeddings of the instruction, which no language model has read, (B, L, D) float; None reads
                frames without text.
            text_valid: (B, L) bool, False on padding; None for no padding.

        Returns:
            (B, T * N, D) float.
        """
        rows, count, places = frames.shape[:3]
        media, valid = frames.flatten(0, 1), None
        if text is not None:
            media = torch.cat([media, text.repeat_interleave(count, 0)], 1)
            if text_valid is not None:
                of_image = torch.ones(rows, places, dtype=torch.bool, device=frames.device)
                valid = torch.cat([of_image, text_valid], 1).repeat_interleave(count, 0)
        latents = self.queries.to(media.dtype).expand(len(media), -1, -1)
        return self.resampler(media, latents, valid).reshape(rows, count * self.tokens, -1)
