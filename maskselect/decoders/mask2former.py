"""The segmentation decoder of Mask2Former (Cheng et al. 2022, arXiv 2112.01527), as InstructSeg (2412.14006) uses it.

`PixelDecoder` turns the maps of an encoder into a pyramid and mask features. `MaskDecoder` turns given queries into
masks, and scores each mask by the dot product of its query with a text vector. Plain PyTorch with the original names
of parameters, because transformers documents only its whole model, which has no given queries, and because weights are
published under the original names.

InstructSeg's differences from Mask2Former: the content queries come from the language model, the lateral convolution
has a ReLU and all convolutions have a bias, and instead of a classifier there is `query_projection` (`SEG_proj` in the
published weights).

Shape letters: B images, R rows (one for each prompt), Q queries, D channels, E channels of mask features, L levels
from coarse to fine, S cells of all levels, M heads, K places per head and level, h w a grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.init import constant_, normal_, xavier_uniform_, zeros_

from maskselect.ops.pooling import cell_weights, mask_pool
from maskselect.ops.sampling import sine_waves, weighted_samples

_TEMPERATURE = 10000.0
_GROUPS = 32
Shapes = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class PixelFeatures:
    """Output of `PixelDecoder` for B images, float32.

    Attributes:
        maps: (B, D, h_l, w_l) for each level, coarsest first.
        mask_features: (B, E, h, w) at the finest grid.
    """

    maps: list[Tensor]
    mask_features: Tensor


@dataclass(frozen=True, eq=False)
class MaskPredictions:
    """Output of `MaskDecoder`: one prediction before the first layer and one after each layer, the last one last.

    Attributes:
        scores: (R, Q) float32 logits for each prediction.
        masks: (R, Q, h, w) float32 logits for each prediction, on the grid of the mask features.
    """

    scores: list[Tensor]
    masks: list[Tensor]


class PixelDecoder(nn.Module):
    """Deformable attention over the coarser maps of an encoder, and one FPN step to its finest map.

    It computes in float32 under autocast, as the original does.

    Args:
        channels: of the encoder's maps, finest first. All but the finest take part in the attention.
        dim: D, a multiple of 4 and of `heads`.
        heads, points: M and K.
        layers: attention layers.
        ffn: width of their feed-forward networks.
        mask_dim: E.
        extra_levels: further maps, each of half the side of the one before, made from the coarsest map by strided
            convolutions as in Deformable DETR.

    Attributes:
        channels: as given.
        levels: L.

    Raises:
        ValueError: for fewer than two maps, or sizes that do not fit together.
    """

    def __init__(
        self,
        channels: Sequence[int],
        dim: int = 256,
        heads: int = 8,
        points: int = 4,
        layers: int = 6,
        ffn: int = 1024,
        mask_dim: int = 256,
        extra_levels: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(dim, heads)
        if len(channels) < 2:
            raise ValueError(f"a pixel decoder needs at least two maps, got channels {list(channels)}")
        self.channels = list(channels)
        self.levels, self.extra_levels = len(channels) - 1 + extra_levels, extra_levels
        projections = [_projection(width, dim, 1) for width in reversed(channels[1:])]
        extra = [_projection(channels[-1] if k == 0 else dim, dim, 3, stride=2) for k in range(extra_levels)]
        self.input_proj = nn.ModuleList([*reversed(extra), *projections])
        self.transformer = DeformableEncoder(dim, heads, points, layers, ffn, self.levels)
        self.adapter_1 = nn.Sequential(*_projection(channels[0], dim, 1), nn.ReLU())
        self.layer_1 = nn.Sequential(*_projection(dim, dim, 3), nn.ReLU())
        self.mask_features = nn.Conv2d(dim, mask_dim, 1)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 4:
                xavier_uniform_(parameter)
                zeros_(self.get_parameter(f"{name.removesuffix('weight')}bias"))

    def forward(self, maps: Sequence[Tensor]) -> PixelFeatures:
        """Maps (B, C_i, h_i, w_i) of an encoder, finest first, to the pyramid and the mask features."""
        with torch.autocast(maps[0].device.type, enabled=False):
            finest, *coarse = [m.float() for m in maps]
            extra, projections = self.input_proj[: self.extra_levels], self.input_proj[self.extra_levels :]
            inputs = [project(m) for project, m in zip(projections, reversed(coarse), strict=True)]
            coarsest = coarse[-1]
            for halve in reversed(extra):
                coarsest = halve(coarsest)
                inputs.insert(0, coarsest)
            pyramid = self.transformer(inputs)
            lateral = self.adapter_1(finest)
            upsampled = F.interpolate(pyramid[-1], lateral.shape[-2:], mode="bilinear", align_corners=False)
            return PixelFeatures(pyramid, self.mask_features(self.layer_1(lateral + upsampled)))


class DeformableEncoder(nn.Module):
    """Layers of deformable attention among the cells of all levels."""

    def __init__(self, dim: int, heads: int, points: int, layers: int, ffn: int, levels: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(normal_(torch.empty(levels, dim, dtype=torch.float32)))
        self.encoder: Any = nn.Module()
        self.encoder.layers = nn.ModuleList(DeformableLayer(dim, heads, points, ffn, levels) for _ in range(layers))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Projected maps (B, D, h_l, w_l) to the same."""
        shapes = [(m.shape[-2], m.shape[-1]) for m in maps]
        cells = torch.cat([rearrange(m, "b d h w -> b (h w) d") for m in maps], 1)
        positions = torch.cat([sine_positions(m) + embed for m, embed in zip(maps, self.level_embed, strict=True)])
        centres = torch.cat([cell_centres(m) for m in maps])
        for layer in self.encoder.layers:
            cells = layer(cells, positions, centres, shapes)
        parts = cells.split([h * w for h, w in shapes], 1)
        return [rearrange(p, "b (h w) d -> b d h w", h=h).contiguous() for p, (h, _) in zip(parts, shapes, strict=True)]


class DeformableLayer(nn.Module):
    """Deformable attention and a feed-forward network, each followed by a norm."""

    def __init__(self, dim: int, heads: int, points: int, ffn: int, levels: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, heads, points, levels)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, ffn), nn.Linear(ffn, dim)
        xavier_uniform_(self.linear1.weight)
        xavier_uniform_(self.linear2.weight)

    def forward(self, cells: Tensor, positions: Tensor, centres: Tensor, shapes: Shapes) -> Tensor:
        """Cells (B, S, D), positions (S, D), centres (S, 2) to (B, S, D)."""
        cells = self.norm1(cells + self.self_attn(cells + positions, cells, centres, shapes))
        out: Tensor = self.norm2(cells + self.linear2(F.relu(self.linear1(cells))))
        return out


class DeformableAttention(nn.Module):
    """Attention of each cell to K predicted places on each level, without padding."""

    def __init__(self, dim: int, heads: int, points: int, levels: int) -> None:
        super().__init__()
        self.heads, self.points, self.levels = heads, points, levels
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        zeros_(self.sampling_offsets.weight)
        zeros_(self.attention_weights.weight)
        zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            xavier_uniform_(linear.weight)
            constant_(linear.bias, 0.0)
        # The heads begin by looking in M directions, 1 to K cells away (Zhu et al. 2021, appendix A.4).
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        offsets = directions[:, None, None] * torch.arange(1, points + 1)[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, levels, -1, -1).flatten())

    def forward(self, query: Tensor, value: Tensor, centres: Tensor, shapes: Shapes) -> Tensor:
        """Query and value (B, S, D), centres (S, 2), to (B, S, D)."""
        sizes = {"m": self.heads, "l": self.levels}
        offsets = rearrange(self.sampling_offsets(query), "b s (m l k xy) -> b s m l k xy", **sizes, xy=2)
        weights = rearrange(self.attention_weights(query), "b s (m lk) -> b s m lk", m=self.heads).softmax(-1)
        weights = rearrange(weights, "b s m (l k) -> b s m l k", l=self.levels)
        maps = self.value_proj(value).split([h * w for h, w in shapes], 1)
        total = torch.zeros((), dtype=value.dtype, device=value.device)
        for level, ((height, width), cells) in enumerate(zip(shapes, maps, strict=True)):
            side = torch.tensor([width, height], dtype=value.dtype, device=value.device)
            places = centres[:, None, None] + offsets[:, :, :, level] / side
            total = total + weighted_samples(cells, (height, width), places, weights[:, :, :, level])
        out: Tensor = self.output_proj(total)
        return out


class MaskDecoder(nn.Module):
    """Masked attention of given queries to the pyramid, with masks and scores before and after each layer.

    A query attends only to the cells inside its own mask of the prediction before, or to all cells where that mask is
    empty. Layer i reads level i % L, coarsest first. The masks for attention and all logits are float32 under
    autocast.

    Args:
        dim: D, a multiple of 4 and of `heads`.
        heads: M.
        ffn: width of the feed-forward networks.
        layers: decoder layers.
        queries: Q.
        mask_dim: E.
        levels: L, of the pixel decoder.

    Raises:
        ValueError: for sizes that do not fit together.
    """

    def __init__(
        self,
        dim: int = 256,
        heads: int = 8,
        ffn: int = 2048,
        layers: int = 9,
        queries: int = 100,
        mask_dim: int = 256,
        levels: int = 3,
    ) -> None:
        super().__init__()
        _check_sizes(dim, heads)
        self.levels = levels
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(dim, heads) for _ in range(layers))
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(dim, heads) for _ in range(layers))
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(dim, ffn) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(dim)
        self.query_embed = nn.Embedding(queries, dim)
        self.level_embed = nn.Embedding(levels, dim)
        self.mask_embed = Mlp(dim, dim, mask_dim, 3)
        self.query_projection = Mlp(dim, dim, dim, 2)

    def forward(
        self,
        features: PixelFeatures,
        queries: Tensor,
        text: Tensor,
        owner: Tensor | None = None,
        only_last: bool = False,
    ) -> MaskPredictions:
        """Masks and scores of queries.

        Args:
            features: of B images.
            queries: (R, Q, D) content of the queries.
            text: (R, 1, D) text vectors, or (1, 1, D) for one that all rows share.
            owner: (R,) int64, the image of each row; None if row r belongs to image r, or if there is one image.
            only_last: return the last prediction alone, for inference.

        Raises:
            ValueError: for rows or levels that do not fit `features`.
        """
        rows, images = len(queries), len(features.mask_features)
        if len(features.maps) != self.levels:
            raise ValueError(f"the mask decoder reads {self.levels} levels, got {len(features.maps)}")
        if owner is None and images not in (1, rows):
            raise ValueError(f"{rows} rows of queries for {images} images need owner, the image of each row")
        keys, values = zip(*map(self._keys_and_values, features.maps, self.level_embed.weight), strict=True)
        fine = of_rows(features.mask_features.float(), owner, rows)
        # Attention needs the masks on the grid of a level. A product with resized mask features is the resized mask.
        sizes = [m.shape[-2:] for m in features.maps]
        shrunk = [_resized(features.mask_features.detach().float(), size) for size in sizes]
        shrunk = [of_rows(m, owner, rows) for m in shrunk]
        places = self.query_embed.weight
        predictions = MaskPredictions([], [])
        embedding = self._predict(queries, text, fine, predictions, only_last)
        blocks = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for number, (cross, within, feed) in enumerate(blocks):
            level = number % self.levels
            visible = _visible(embedding, shrunk[level])
            queries = cross(queries, places, keys[level], values[level], visible, owner)
            queries = feed(within(queries, places))
            skip = only_last and number + 1 < len(self.transformer_ffn_layers)
            embedding = self._predict(queries, text, fine, predictions, skip)
        return predictions

    def score_masks(self, features: PixelFeatures, masks: Tensor, text: Tensor) -> Tensor:
        """Score given candidate masks of one image, in place of the decoder's own.

        The mean of the mask features under a mask goes through the score head like a query.

        Args:
            features: of one image, with E = D.
            masks: (N, H, W) bool, with the padding of the image.
            text: (R, 1, D).

        Returns:
            (R, N) float32 logits.
        """
        fine = features.mask_features.float()[0]
        pooled = mask_pool(fine, cell_weights(masks, (fine.shape[-2], fine.shape[-1])))
        return self._scores(self.decoder_norm(pooled)[None], text)

    def _keys_and_values(self, level: Tensor, embed: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, h * w, D) of a level."""
        value = rearrange(level, "b d h w -> b (h w) d") + embed
        return value + sine_positions(level), value

    def _predict(self, queries: Tensor, text: Tensor, fine: Tensor, predictions: MaskPredictions, skip: bool) -> Tensor:
        """Append the prediction of queries (R, Q, D), unless `skip`, and return their mask embeddings (R, Q, E)."""
        normed = self.decoder_norm(queries)
        embedding: Tensor = self.mask_embed(normed).float()
        if not skip:
            predictions.scores.append(self._scores(normed, text))
            predictions.masks.append(mask_logits(embedding, fine))
        return embedding

    def _scores(self, normed: Tensor, text: Tensor) -> Tensor:
        """(R, Q, D) and (R, 1, D) to (R, Q) float32; one row of either serves all rows of the other."""
        projected = self.query_projection(normed).float()
        return (projected * text.float()).sum(-1)


class Attention(nn.Module):
    """Multi-head attention of rows to the keys of their images, with the parameters of nn.MultiheadAttention.

    Keys and values are projected once for each image, however many rows it has.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(xavier_uniform_(torch.empty(3 * dim, dim, dtype=torch.float32)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim, dtype=torch.float32))
        self.out_proj = nn.Linear(dim, dim)
        xavier_uniform_(self.out_proj.weight)
        zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None, owner: Tensor | None = None
    ) -> Tensor:
        """(R, Q, D) for query (R, Q, D), key and value (B, S, D), visible (R, Q, S) bool, owner (R,) int64."""
        inputs = (query, key, value)
        parts = zip(inputs, self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        q, k, v = (rearrange(F.linear(x, w, b), "r s (m d) -> r m s d", m=self.heads) for x, w, b in parts)
        k, v = (of_rows(x, owner, len(q)) for x in (k, v))
        mask = None if visible is None else visible[:, None]
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(rearrange(read, "r m s d -> r s (m d)"))
        return out


class CrossAttentionLayer(nn.Module):
    """Masked attention to a level, followed by a norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn, self.norm = Attention(dim, heads), nn.LayerNorm(dim)

    def forward(
        self, queries: Tensor, places: Tensor, key: Tensor, value: Tensor, visible: Tensor, owner: Tensor | None
    ) -> Tensor:
        """Queries (R, Q, D) with positions `places` (Q, D) to (R, Q, D); see `Attention`."""
        out: Tensor = self.norm(queries + self.multihead_attn(queries + places, key, value, visible, owner))
        return out


class SelfAttentionLayer(nn.Module):
    """Attention among the queries of a row, followed by a norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn, self.norm = Attention(dim, heads), nn.LayerNorm(dim)

    def forward(self, queries: Tensor, places: Tensor) -> Tensor:
        """Queries (R, Q, D) with positions `places` (Q, D) to (R, Q, D)."""
        placed = queries + places
        out: Tensor = self.norm(queries + self.self_attn(placed, placed, queries))
        return out


class FeedForwardLayer(nn.Module):
    """Two linear layers with a ReLU between them, followed by a norm."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1, self.linear2, self.norm = nn.Linear(dim, hidden), nn.Linear(hidden, dim), nn.LayerNorm(dim)
        xavier_uniform_(self.linear1.weight)
        xavier_uniform_(self.linear2.weight)

    def forward(self, queries: Tensor) -> Tensor:
        """(R, Q, D) to the same."""
        out: Tensor = self.norm(queries + self.linear2(F.relu(self.linear1(queries))))
        return out


class Mlp(nn.Module):
    """Linear layers with ReLUs between them."""

    def __init__(self, dim: int, hidden: int, out: int, layers: int) -> None:
        super().__init__()
        sizes = [dim, *[hidden] * (layers - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., out)."""
        for number, layer in enumerate(self.layers):
            x = layer(F.relu(x) if number else x)
        return x


class ObjectDecoder(nn.Module):
    """Pixel decoder and mask decoder with learned queries and one learned text vector, which stands for "an object".

    It finds all objects of an image, whatever they are. Its training gives InstructSeg's decoder a start, as
    Mask2Former's training on COCO does for the published system.

    Args:
        pixel_decoder: its `channels` are those of the maps.
        mask_decoder: of as many levels.

    Attributes:
        query_feat: (Q, D), as in InstructSeg.
        object_embed: (D,), the text vector, as in InstructSeg.
    """

    def __init__(self, pixel_decoder: PixelDecoder, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        queries, dim = mask_decoder.query_embed.weight.shape
        self.pixel_decoder, self.mask_decoder = pixel_decoder, mask_decoder
        self.query_feat = nn.Parameter(normal_(torch.empty(queries, dim, dtype=torch.float32)))
        self.object_embed = nn.Parameter(normal_(torch.empty(dim, dtype=torch.float32)))

    def forward(self, maps: Sequence[Tensor], only_last: bool = False) -> MaskPredictions:
        """Maps (B, C_i, h_i, w_i) of an encoder, finest first, to predictions with R = B rows."""
        queries, text = self.query_feat.expand(len(maps[0]), -1, -1), self.object_embed[None, None]
        out: MaskPredictions = self.mask_decoder(self.pixel_decoder(maps), queries, text, only_last=only_last)
        return out


def sine_positions(grid: Tensor) -> Tensor:
    """Sine embedding (h * w, D) float32 of the cells of a map (B, D, h, w): y before x, the last cell at 2 pi."""
    dim, height, width = grid.shape[1:]
    turns = [torch.arange(1, n + 1, device=grid.device) / (n + 1e-6) * (2 * math.pi) for n in (height, width)]
    down, across = (sine_waves(turn, dim // 2, _TEMPERATURE) for turn in turns)
    both = torch.cat([down[:, None].expand(-1, width, -1), across[None].expand(height, -1, -1)], -1)
    return both.flatten(0, 1)


def cell_centres(grid: Tensor) -> Tensor:
    """Centres (x, y) of the cells of a map (B, D, h, w), relative to the map: (h * w, 2) float32."""
    rows, columns = ((torch.arange(n, device=grid.device) + 0.5) / n for n in grid.shape[-2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1).flatten(0, 1)


def mask_logits(embedding: Tensor, features: Tensor) -> Tensor:
    """Mask logits (R, Q, h, w) float32: the products of embeddings (R, Q, E) with mask features (R, E, h, w)."""
    with torch.autocast(embedding.device.type, enabled=False):
        return (embedding @ features.flatten(2)).unflatten(2, features.shape[-2:])


def of_rows(of_images: Tensor, owner: Tensor | None, rows: int) -> Tensor:
    """The entries (R, ...) of rows, from those of their images (B, ...); one image is not copied."""
    if len(of_images) == 1:
        return of_images.expand(rows, *of_images.shape[1:])
    return of_images if owner is None else of_images[owner]


@torch.no_grad()
def _visible(embedding: Tensor, features: Tensor) -> Tensor:
    """Cells inside the mask of each query, all cells for an empty mask: (R, Q, h * w) bool."""
    visible = mask_logits(embedding, features).flatten(2) >= 0
    return visible | ~visible.any(-1, keepdim=True)


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, list(size), mode="bilinear", align_corners=False)


def _projection(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution and a group norm; fewer than 32 groups where the channels do not divide."""
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(_GROUPS, after), after))


def _check_sizes(dim: int, heads: int) -> None:
    if dim % heads or dim % 4:
        raise ValueError(f"dim must be a multiple of 4 and of heads, got dim {dim} and heads {heads}")
