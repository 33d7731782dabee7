"""Runs many prompts on one image through SAM, in batches and in bounded memory.

Shape letters: P prompts, T tokens of a prompt, K masks of a prompt, C channels, l side of the logits.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from maskselect.backends.sam import attend_prompts, upscale_masks
from maskselect.backends.sam_network import Sam

_Result = TypeVar("_Result")
Precision = Literal["float32", "bfloat16"]
MasksPerPoint = Literal[1, 3]
_COPIES = 9
"""Greatest number of arrays of a prompt's image tokens at once, measured with ViT-B's decoder."""


class PointDecoder:
    """Runs batches of prompts through SAM.

    When the device runs out of memory, the batch is halved from then on, and the work continues.

    Args:
        sam: its encoder and decoder are converted to `precision`. The prompt encoder stays in float32, because sines of
            large numbers need the precision.
        batch: number of prompts at once.
        precision: "float32" or "bfloat16".
        compile: apply torch.compile, with fixed shapes; a smaller last batch is padded.
        memory_budget_mb: limit for the decoder's arrays, by a smaller batch; None for no limit.
        masks_per_point: 3 for the three masks of several sizes, 1 for the single mask.
    """

    def __init__(
        self,
        sam: Sam,
        batch: int,
        precision: Precision = "float32",
        compile: bool = False,
        memory_budget_mb: int | None = None,
        masks_per_point: MasksPerPoint = 3,
    ) -> None:
        self.outputs = slice(1, None) if masks_per_point == 3 else slice(0, 1)
        self.sam, self.precision, self.compile = sam, precision, compile
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        sam.image_encoder.to(self.dtype)
        sam.mask_decoder.to(self.dtype)
        self.batch = (
            batch if memory_budget_mb is None else max(1, min(batch, memory_budget_mb * 2**20 // self._bytes()))
        )
        self._encode: Callable[..., Any] = sam.image_encoder
        self._attend: Callable[..., Any] = partial(attend_prompts, sam)
        self._upscale_masks: Callable[..., Any] = partial(upscale_masks, sam)
        if compile:
            self._encode, self._attend, self._upscale_masks = (
                torch.compile(part, dynamic=False) for part in (self._encode, self._attend, self._upscale_masks)
            )

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised and padded pixels (1, 3, S, S) float32 to the image embedding (1, C, h, w)."""
        return self._encode(pixels.to(self.dtype))

    def decode(self, embedding: Tensor, sparse: Tensor, least_iou: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Predict the masks of prompts, batch by batch.

        Args:
            embedding: (1, C, h, w).
            sparse: (P, T, C) prompts.
            least_iou: prompts without a mask of greater predicted IoU are left out, before upscaling.

        Yields:
            Logits (p, K, l, l) float32 and predicted IoU (p, K) float32 of the p prompts of a batch that stay.
        """
        return self._in_batches(len(sparse), lambda rows: self._decode_batch(embedding, sparse[rows], least_iou))

    def redraw(self, embedding: Tensor, sparse: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Predict one mask for each prompt (P, T, C) with logits (P, l, l): logits (P, l, l) and IoU (P,) float32."""
        parts = list(
            self._in_batches(len(sparse), lambda rows: self._redecode_batch(embedding, sparse[rows], low[rows]))
        )
        lows, ious = zip(*parts, strict=True) if parts else ([low], [low.new_zeros(0)])
        return torch.cat(lows), torch.cat(ious)

    def _in_batches(self, count: int, work: Callable[[slice], _Result]) -> Iterator[_Result]:
        """Call `work` with slices of `count` prompts, and with smaller ones after running out of memory."""
        start = 0
        while start < count:
            batch = self.batch  # another thread may halve it
            try:
                result = work(slice(start, start + batch))
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
                self.batch = min(self.batch, (batch + 1) // 2)
                continue
            yield result
            start += batch

    def _redecode_batch(self, embedding: Any, sparse: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        tokens, pixels, iou = attend_prompts(self.sam, embedding, sparse[None], low[None])
        return upscale_masks(self.sam, tokens, pixels)[:, 0].float(), iou[:, 0].float()

    def _decode_batch(self, embedding: Tensor, sparse: Tensor, least_iou: float) -> tuple[Tensor, Tensor]:
        count = len(sparse)
        batch = max(self.batch, count)
        tokens, pixels, iou = self._attend(embedding, self._padded(sparse, batch)[None])
        iou = iou[:count, self.outputs].float()
        good = (iou > least_iou).any(1).nonzero()[:, 0]
        step = max(1, batch // 4) if self.compile else max(1, len(good))
        low = []
        for rows in good.split(step) if len(good) else ():
            logits = self._upscale_masks(self._padded(tokens[rows], step), self._padded(pixels[rows], step))
            low.append(logits[: len(rows), self.outputs].float())
        side = pixels.shape[-1] * 4
        return torch.cat(low) if low else iou.new_zeros(0, iou.shape[1], side, side), iou[good]

    def _padded(self, rows: Tensor, count: int) -> Tensor:
        """`rows`, padded to `count` with its first row if shapes are compiled."""
        if not self.compile or len(rows) == count:
            return rows
        return torch.cat([rows, rows[:1].expand(count - len(rows), *rows.shape[1:])])

    def _bytes(self) -> int:
        """Memory of one prompt in the decoder."""
        height, width = self.sam.prompt_encoder.image_embedding_size
        return height * width * self.sam.prompt_encoder.embed_dim * self.dtype.itemsize * _COPIES
