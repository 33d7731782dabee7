"""SAM's encoder and decoder as everything mode needs them: many prompts on one image, in batches, in a bounded memory.

Shape letters: P prompts, T tokens of a prompt, l side of the logits.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from maskselect.backends.sam import attend_prompts, draw_masks
from maskselect.backends.sam_network import Sam

_Done = TypeVar("_Done")
Precision = Literal["float32", "bfloat16"]
MasksPerPoint = Literal[1, 3]
_COPIES = 9
"""How many arrays of a prompt's image tokens live at once, at most; measured with ViT-B's decoder."""


class PointDecoder:
    """Batches of prompts through SAM.

    sam: its encoder and decoder take on `precision`; its prompt encoder stays as it is, since sines of large numbers
        need the digits.
    batch: prompts a time.  compile: through torch.compile, with fixed shapes: a last, smaller batch is filled up.
    memory_budget_mb: batches shrink until the decoder's arrays fit, those of one image in flight.
    masks_per_point: of what the decoder draws for a prompt, its three masks of several sizes, or its one.

    When the device's memory runs out nevertheless, the batch is halved for good, and the work goes on.
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
        self.kept = slice(1, None) if masks_per_point == 3 else slice(0, 1)
        self.sam, self.precision, self.compile = sam, precision, compile
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        sam.image_encoder.to(self.dtype)
        sam.mask_decoder.to(self.dtype)
        self.batch = (
            batch if memory_budget_mb is None else max(1, min(batch, memory_budget_mb * 2**20 // self._bytes()))
        )
        self._encode: Callable[..., Any] = sam.image_encoder
        self._attend: Callable[..., Any] = partial(attend_prompts, sam)
        self._draw: Callable[..., Any] = partial(draw_masks, sam)
        if compile:
            self._encode, self._attend, self._draw = (
                torch.compile(part, dynamic=False) for part in (self._encode, self._attend, self._draw)
            )

    def embed(self, pixels: Tensor) -> Tensor:
        """(1, 3, S, S) float32, normalised and padded, to the image embedding (1, C, h, w)."""
        return self._encode(pixels.to(self.dtype))

    def decode(self, embedding: Tensor, sparse: Tensor, least_iou: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (p, K, l, l) float32 and predicted IoU (p, K) float32 of K masks a prompt, batch by batch.

        embedding: (1, C, h, w).  sparse: (P, T, C) prompts.
        least_iou: prompts of which no mask is above it are left out; they are not even drawn.
        """
        return self._in_batches(len(sparse), lambda rows: self._decoded(embedding, sparse[rows], least_iou))

    def redraw(self, embedding: Tensor, sparse: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """One mask a prompt, asked for by its own logits too: (P, T, C), (P, l, l) to (P, l, l), IoU (P,), float32."""
        parts = list(self._in_batches(len(sparse), lambda rows: self._redrawn(embedding, sparse[rows], low[rows])))
        lows, ious = zip(*parts, strict=True) if parts else ([low], [low.new_zeros(0)])
        return torch.cat(lows), torch.cat(ious)

    def _in_batches(self, count: int, work: Callable[[slice], _Done]) -> Iterator[_Done]:
        """`work` on one slice of `count` prompts after another, in smaller ones from where memory runs out."""
        start = 0
        while start < count:
            batch = self.batch  # another thread may halve it meanwhile
            try:
                done = work(slice(start, start + batch))
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
                self.batch = min(self.batch, (batch + 1) // 2)
                continue
            yield done
            start += batch

    def _redrawn(self, embedding: Any, sparse: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        tokens, pixels, iou = attend_prompts(self.sam, embedding, sparse[None], low[None])
        return draw_masks(self.sam, tokens, pixels)[:, 0].float(), iou[:, 0].float()

    def _decoded(self, embedding: Tensor, sparse: Tensor, least_iou: float) -> tuple[Tensor, Tensor]:
        count = len(sparse)
        batch = max(self.batch, count)
        tokens, pixels, iou = self._attend(embedding, self._filled(sparse, batch)[None])
        iou = iou[:count, self.kept].float()
        drawn = (iou > least_iou).any(1).nonzero()[:, 0]
        step = max(1, batch // 4) if self.compile else max(1, len(drawn))
        low = []
        for rows in drawn.split(step) if len(drawn) else ():
            logits = self._draw(self._filled(tokens[rows], step), self._filled(pixels[rows], step))
            low.append(logits[: len(rows), self.kept].float())
        side = pixels.shape[-1] * 4
        return torch.cat(low) if low else iou.new_zeros(0, iou.shape[1], side, side), iou[drawn]

    def _filled(self, rows: Tensor, count: int) -> Tensor:
        """`rows` with repeats of the first up to `count`, where shapes are compiled."""
        if not self.compile or len(rows) == count:
            return rows
        return torch.cat([rows, rows[:1].expand(count - len(rows), *rows.shape[1:])])

    def _bytes(self) -> int:
        """What one prompt takes in the decoder."""
        height, width = self.sam.prompt_encoder.image_embedding_size
        return height * width * self.sam.prompt_encoder.embed_dim * self.dtype.itemsize * _COPIES
