"""The Co-DINO head: an encoder over the pyramid, queries chosen from its cells, a decoder that refines their boxes.

Sources: Zhang et al. 2022 (DINO, 2203.03605) for mixed query selection and box refinement, as Co-DETR uses them with
five levels. Shape letters: B images, S cells of all levels, Q queries, D channels, C classes. Boxes are (centre x,
centre y, width, height), relative to the valid part of the canvas.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from maskselect.proposers.codetr.config import LEVELS, CoDetrConfig
from maskselect.proposers.codetr.deformable import DecoderLayer, EncoderLayer, FeedForward
from maskselect.proposers.codetr.positions import Layout, embed_boxes, sine_map, to_logit

_ROWS = 16384  # cells that are classified at once: LVIS has 1203 classes for each of 200,000 cells


@dataclass(frozen=True)
class Predictions:
    """Predictions for a batch.

    Attributes:
        logits: (B, Q, C) class logits.
        boxes: (B, Q, 4) in [0, 1].
        maps: (B, D, h, w) for each level, after the encoder. The mask heads read them.
    """

    logits: Tensor
    boxes: Tensor
    maps: list[Tensor]


class QueryHead(nn.Module):
    """From the pyramid to scored boxes.

    `classify` and `regress` hold one branch for each decoder layer, and a last one for the encoder's cells.
    """

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        dim, branches = config.dim, config.decoder_layers + 1
        self.queries = config.queries
        self.level_embeds = nn.Parameter(torch.empty(LEVELS, dim, dtype=torch.float32).normal_())
        self.query_embed = nn.Embedding(config.queries, dim)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.memory_proj = nn.Linear(dim, dim)
        self.memory_norm = nn.LayerNorm(dim)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(dim)
        self.box_position = FeedForward(2 * dim, dim, dim)
        self.classify = nn.ModuleList(nn.Linear(dim, config.classes) for _ in range(branches))
        self.regress = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4))
            for _ in range(branches)
        )

    def forward(self, maps: list[Tensor], padding: Tensor) -> Predictions:
        """Predict boxes. An image with fewer cells than queries gets one query per cell.

        Args:
            maps: (B, D, h, w) for each level, finest first.
            padding: (B, H, W) bool, True for padding pixels of the canvas.
        """
        layout = Layout.of(padding, [(m.shape[-2], m.shape[-1]) for m in maps])
        memory = self.encode(maps, layout)
        logits, boxes = self.decode(memory, self.choose(memory, layout), layout)
        return Predictions(logits, boxes, _to_maps(memory, layout))

    def encode(self, maps: list[Tensor], layout: Layout) -> Tensor:
        """All cells after the encoder, (B, S, D)."""
        x = torch.cat([rearrange(m, "b d h w -> b (h w) d") for m in maps], 1)
        half = x.shape[-1] // 2
        sines = [sine_map(p, half) + e for p, e in zip(layout.paddings, self.level_embeds, strict=True)]
        positions, references, padding = torch.cat(sines, 1), layout.references(), layout.padding
        for layer in self.encoder:
            x = layer(x, positions, references, layout.shapes, padding)
        return x

    def choose(self, memory: Tensor, layout: Layout) -> Tensor:
        """Boxes (B, Q, 4) of the cells that become queries, by falling score of their best class."""
        first, usable = layout.first_boxes()
        rows = self.memory_norm(self.memory_proj(memory.masked_fill(~usable[..., None], 0.0)))
        best = torch.cat([self.classify[-1](part).amax(-1) for part in rows.split(_ROWS, 1)], 1)
        chosen = best.topk(min(self.queries, best.shape[1]), 1).indices[..., None]
        rows, first = (x.gather(1, chosen.expand(-1, -1, x.shape[-1])) for x in (rows, first))
        return (self.regress[-1](rows) + first).sigmoid()

    def decode(self, memory: Tensor, boxes: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Class logits (B, Q, C) and boxes (B, Q, 4) after the last decoder layer.

        The content of queries is learned and does not come from the cells. The raw output of a layer refines the box
        for the next layer; the predictions come from the normalised output of the last layer.
        """
        x, padding = self.query_embed.weight[: boxes.shape[1]].expand(len(memory), -1, -1), layout.padding
        ratios = layout.valid_ratios.repeat(1, 1, 2)[:, None]
        for layer, regress in zip(self.decoder, self.regress, strict=False):
            before = boxes
            references = boxes[:, :, None] * ratios
            positions = self.box_position(embed_boxes(references[:, :, 0], x.shape[-1] // 2))
            x = layer(x, positions, memory, references, layout.shapes, padding)
            boxes = (regress(x) + to_logit(boxes)).sigmoid()
        normed = self.decoder_norm(x)
        return self.classify[-2](normed), (self.regress[-2](normed) + to_logit(before)).sigmoid()


def _to_maps(memory: Tensor, layout: Layout) -> list[Tensor]:
    """(B, S, D) to a map (B, D, h, w) for each level."""
    parts = memory.split([h * w for h, w in layout.shapes], 1)
    return [rearrange(p, "b (h w) d -> b d h w", h=h) for p, (h, _) in zip(parts, layout.shapes, strict=True)]
