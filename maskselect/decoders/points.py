"""`PointMaskDecoder`: the feature under a point generates a small network that draws the masks at that point.

Dynamic convolutions as in CondInst (Tian et al. 2020, arXiv 2003.05664) with the ambiguity of Segment Anything
(arXiv 2304.02643): every point has three masks, each with a predicted IoU. All points of an image share one map of mask
features, so that many points cost one matrix product.

Differences from CondInst: there are no classes and no boxes, the generated network has two layers (its Table 2 finds
little gain from a third), and mask features come from a map of stride 4 instead of 8.

Shape letters: B images, N points, K masks of a point, D channels of a level, E mask features, U hidden units of the
generated network, h w the grid of the masks, S tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from maskselect.ops.sampling import sine_waves

_GROUPS = 8
_TEMPERATURE = 10000.0
_REACH = 8
"""Relative coordinates are in units of this many cells of the point's level, CondInst's ratio of range and stride."""


@dataclass(frozen=True, eq=False)
class PointFeatures:
    """What all points of B images share.

    Attributes:
        levels: (B, D, h_l, w_l) for each level, finest first, each of half the side of the one before. A point is a
            cell of one of them.
        mask_features: (B, E, h, w), on a grid twice as fine as the first level. They may be of a part of the image from
            its top left corner, in which masks are drawn.
    """

    levels: list[Tensor]
    mask_features: Tensor


class PointMaskDecoder(nn.Module):
    """Pyramid, mask features, and the network that writes networks.

    Args:
        channels: of the encoder's maps, finest first, each of half the side of the one before. The first map is that of
            the masks, the others are the levels.
        dim: D, a multiple of 8 and of `heads`.
        detail_dim: channels of the branch of mask features, a multiple of 8.
        mask_dim: E.
        hidden: U.
        masks: K.
        context_layers, heads: transformer layers on the coarsest level, and their heads.

    Attributes:
        channels: as given.
        levels: number of levels.

    Raises:
        ValueError: for fewer than two maps, or sizes that do not fit together.
    """

    def __init__(
        self,
        channels: Sequence[int],
        dim: int = 96,
        detail_dim: int = 48,
        mask_dim: int = 24,
        hidden: int = 16,
        masks: int = 3,
        context_layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"a point decoder needs at least two maps, got channels {list(channels)}")
        if dim % heads or dim % _GROUPS or detail_dim % _GROUPS:
            raise ValueError(
                f"dim {dim} must be a multiple of {_GROUPS} and of heads {heads}, detail_dim {detail_dim} of {_GROUPS}"
            )
        self.channels, self.levels = list(channels), len(channels) - 1
        self.mask_dim, self.hidden, self.masks = mask_dim, hidden, masks
        self.inputs = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in channels[1:])
        layers = [
            nn.TransformerEncoderLayer(dim, heads, 2 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(context_layers)
        ]
        self.context = nn.ModuleList(layers)
        self.merge = nn.ModuleList(_conv(dim, dim) for _ in range(self.levels - 1))
        self.tower = _conv(dim, dim)
        self.detail_input = nn.Conv2d(channels[0], detail_dim, 1)
        self.detail_context = nn.Conv2d(dim, detail_dim, 1)
        self.detail = nn.Sequential(nn.GroupNorm(_GROUPS, detail_dim), nn.ReLU(), _conv(detail_dim, detail_dim))
        self.mask_features = nn.Conv2d(detail_dim, mask_dim, 1)
        self.level_embed = nn.Parameter(torch.zeros(self.levels, dim))
        self.iou_head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, masks))
        sizes = hidden * (mask_dim + 2), hidden, masks * hidden, masks
        self.kernel_sizes = list(sizes)
        self.kernel_head = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, sum(sizes)))

    def forward(self, maps: Sequence[Tensor]) -> PointFeatures:
        """Maps (B, C_i, h_i, w_i) of an encoder, finest first, to what all points share."""
        finest, *coarse = maps
        inputs = [project(one) for project, one in zip(self.inputs, coarse, strict=True)]
        merged = [self._with_context(inputs[-1])]
        for one, merge in zip(reversed(inputs[:-1]), self.merge, strict=True):
            merged.insert(0, merge(one + _resized(merged[0], one)))
        levels = [
            one + self.tower(one) + embed[:, None, None] for one, embed in zip(merged, self.level_embed, strict=True)
        ]
        detail = self.detail_input(finest)
        detail = detail + _resized(self.detail_context(merged[0]), detail)
        return PointFeatures(levels, self.mask_features(self.detail(detail)))

    def predicted_iou(self, features: PointFeatures) -> list[Tensor]:
        """The predicted IoU of all points: for each level (B, K, h_l, w_l) in [0, 1]."""
        return [self.iou_head(level.movedim(1, -1)).sigmoid().movedim(-1, 1) for level in features.levels]

    def decode(self, features: PointFeatures, points: Tensor) -> tuple[Tensor, Tensor]:
        """The masks of points.

        Args:
            features: of B images.
            points: (N, 4) int64: image, level, row and column of each point.

        Returns:
            Logits (N, K, h, w), and predicted IoU (N, K) in [0, 1].
        """
        vectors = self.vectors(features, points)
        first, first_bias, second, second_bias = self.kernel_head(vectors).split(self.kernel_sizes, 1)
        first = first.unflatten(1, (self.hidden, self.mask_dim + 2))
        second = second.unflatten(1, (self.masks, self.hidden))
        size = features.mask_features.shape[-2:]
        # The layer is linear in the relative place of a pixel. So all points share places, and have their own biases.
        cell = (2.0 ** (points[:, 1] + 1)).to(vectors.dtype)  # side of a point's cell in cells of the masks
        centre = (points[:, [3, 2]].to(vectors.dtype) + 0.5) * cell[:, None]
        toward = first[..., self.mask_dim :] / (_REACH * cell)[:, None, None]
        first = torch.cat([first[..., : self.mask_dim], toward], -1)
        first_bias = first_bias - (toward @ centre[..., None])[..., 0]
        places = _places(size, vectors)
        logits = vectors.new_zeros(len(points), self.masks, *size)
        rows, parts = [], []
        for image in points[:, 0].unique().tolist():
            own = (points[:, 0] == image).nonzero()[:, 0]
            shared = torch.cat([features.mask_features[image].flatten(1), places])
            units = (first[own].flatten(0, 1) @ shared).unflatten(0, (len(own), self.hidden))
            units = F.relu(units + first_bias[own][..., None])
            parts.append(torch.baddbmm(second_bias[own][..., None], second[own], units))
            rows.append(own)
        if parts:
            order = torch.cat(rows).argsort()
            logits = torch.cat(parts)[order].unflatten(2, size)
        return logits, self.iou_head(vectors).sigmoid()

    def vectors(self, features: PointFeatures, points: Tensor) -> Tensor:
        """The features under points, (N, D); see `decode`."""
        out = features.mask_features.new_zeros(len(points), self.level_embed.shape[1])
        for number, level in enumerate(features.levels):
            own = (points[:, 1] == number).nonzero()[:, 0]
            image, _, row, column = points[own].unbind(1)
            out = out.index_copy(0, own, level[image, :, row, column])
        return out

    def _with_context(self, coarsest: Tensor) -> Tensor:
        size = coarsest.shape[-2:]
        y, x = torch.meshgrid(
            *(torch.arange(n, dtype=torch.float32, device=coarsest.device) for n in size), indexing="ij"
        )
        half = coarsest.shape[1] // 2
        position = torch.cat([sine_waves(y, half, _TEMPERATURE), sine_waves(x, half, _TEMPERATURE)], -1)
        tokens = rearrange(coarsest, "b d h w -> b (h w) d") + position.flatten(0, 1).to(coarsest.dtype)
        for layer in self.context:
            tokens = layer(tokens)
        return rearrange(tokens, "b (h w) d -> b d h w", h=size[0])


def _conv(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, out), nn.ReLU())


def _resized(coarse: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(coarse, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _places(size: torch.Size, like: Tensor) -> Tensor:
    """Centres (x, y) of all cells, (2, h w)."""
    y, x = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5 for n in size)
    return torch.stack([x.repeat(size[0]), y.repeat_interleave(size[1])])
