"""The Co-DINO head: an encoder over the pyramid, queries chosen from its cells, a decoder that refines their boxes.

Sources: Zhang et al. 2022 (DINO, 2203.03605) for mixed query selection and box refinement, as Co-DETR uses them with
five levels. Shape letters: B images, S cells of all levels, Q queries, D channels, C classes. Boxes are (centre x,
centre y, width, height) as shares of the valid part of the canvas.
"""

import math
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
    """What the head says about a batch.

    logits: (B, Q, C) class logits of each decoder layer, or of the last one alone.
    boxes: (B, Q, 4) in [0, 1], for the same layers.
    cell_logits, cell_boxes: (B, K, C) and (B, K, 4), cells as the encoder sees them: those that became queries, best
        first, or all of them where every layer was asked for.
    maps: (B, D, h, w) of each level, as the encoder left them. All mask heads read these.
    """

    logits: list[Tensor]
    boxes: list[Tensor]
    cell_logits: Tensor
    cell_boxes: Tensor
    maps: list[Tensor]


class QueryHead(nn.Module):
    """Pyramid to scored boxes.

    `classify` and `regress` hold one branch a decoder layer, and a last one for the encoder's cells.
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
        self.classify = nn.ModuleList(_classifier(dim, config.classes) for _ in range(branches))
        self.regress = nn.ModuleList(_regressor(dim) for _ in range(branches))

    def forward(self, maps: list[Tensor], padding: Tensor, every_layer: bool = False) -> Predictions:
        """Maps (B, D, h, w), finest first, of a canvas whose pixels of padding are True in (B, H, W) bool.

        every_layer: predictions of all decoder layers and all cells, which training wants, instead of the last layer's
            and the chosen cells'.
        An image with fewer cells than there are queries gets as many queries as it has cells.
        """
        layout = Layout.of(padding, [(m.shape[-2], m.shape[-1]) for m in maps])
        memory = self.encode(maps, layout)
        content, first, cell_logits, cell_boxes = self.choose(memory, layout, every_layer)
        logits, boxes = self.decode(memory, content, first.detach(), layout, every_layer)
        return Predictions(logits, boxes, cell_logits, cell_boxes, _to_maps(memory, layout))

    def encode(self, maps: list[Tensor], layout: Layout) -> Tensor:
        """All cells after the encoder, (B, S, D)."""
        x = torch.cat([rearrange(m, "b d h w -> b (h w) d") for m in maps], 1)
        half = x.shape[-1] // 2
        sines = [sine_map(p, half) + e for p, e in zip(layout.paddings, self.level_embeds, strict=True)]
        positions, references, padding = torch.cat(sines, 1), layout.references(), layout.padding
        for layer in self.encoder:
            x = layer(x, positions, references, layout.shapes, padding)
        return x

    def choose(self, memory: Tensor, layout: Layout, every_cell: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The cells that become queries, by falling score of their best class.

        Returns what queries begin with, (Q, D), learned and not from the cells; their boxes (B, Q, 4); and class logits
        and boxes of the chosen cells, in the same order, or of all. Unless all are asked for only the chosen cells get
        a box, since nobody reads the others'.
        """
        first, usable = layout.first_boxes()
        rows = self.memory_norm(self.memory_proj(memory.masked_fill(~usable[..., None], 0.0)))
        with torch.no_grad():
            best = torch.cat([self.classify[-1](part).amax(-1) for part in rows.split(_ROWS, 1)], 1)
            picked = best.topk(min(self.queries, best.shape[1]), 1).indices[..., None]
        if not every_cell:
            rows, first = _rows_of(rows, picked), _rows_of(first, picked)
        logits, boxes = self.classify[-1](rows), (self.regress[-1](rows) + first).sigmoid()
        chosen = _rows_of(boxes, picked) if every_cell else boxes
        return self.query_embed.weight[: picked.shape[1]], chosen, logits, boxes

    def decode(
        self, memory: Tensor, content: Tensor, boxes: Tensor, layout: Layout, every_layer: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits and boxes of the layers that are asked for.

        The next layer starts from the box that the layer's raw output gives, without gradient; what is predicted comes
        from the normalised output and keeps the gradient of the layer before ("look forward twice").
        """
        x, padding = content.expand(len(memory), -1, -1), layout.padding
        ratios = layout.valid_ratios.repeat(1, 1, 2)[:, None]
        logits, found, entering = [], [], boxes
        for number, layer in enumerate(self.decoder):
            placed = boxes[:, :, None] * ratios
            where = self.box_position(embed_boxes(placed[:, :, 0], x.shape[-1] // 2))
            x = layer(x, where, memory, placed, layout.shapes, padding)
            if every_layer or number == len(self.decoder) - 1:
                normed = self.decoder_norm(x)
                logits.append(self.classify[number](normed))
                found.append((self.regress[number](normed) + to_logit(entering)).sigmoid())
            entering = (self.regress[number](x) + to_logit(boxes)).sigmoid()
            boxes = entering.detach()
        return logits, found


def _rows_of(x: Tensor, picked: Tensor) -> Tensor:
    """Rows (B, Q, .) of (B, S, .) by numbers (B, Q, 1)."""
    return x.gather(1, picked.expand(-1, -1, x.shape[-1]))


def _classifier(dim: int, classes: int) -> nn.Linear:
    """Begins by calling one query in a hundred a thing, as focal loss wants (Lin et al. 2017, 1708.02002)."""
    layer = nn.Linear(dim, classes)
    nn.init.constant_(layer.bias, -math.log(99))
    return layer


def _regressor(dim: int) -> nn.Sequential:
    """Begins by leaving boxes as they are."""
    last = nn.Linear(dim, 4)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), last)


def _to_maps(memory: Tensor, layout: Layout) -> list[Tensor]:
    """(B, S, D) back to a map (B, D, h, w) for each level."""
    parts = memory.split([h * w for h, w in layout.shapes], 1)
    return [rearrange(p, "b (h w) d -> b d h w", h=h) for p, (h, _) in zip(parts, layout.shapes, strict=True)]
