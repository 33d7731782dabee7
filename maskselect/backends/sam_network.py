"""Segment Anything's networks except the image encoder (arXiv 2304.02643).

Parameter names and results equal those of the `segment_anything` package, which tests compare. `backends/sam.py` runs
prompts through the networks.

Shape letters: B images, P prompts, T tokens of a prompt, N image tokens, C channels, h w the grid in cells.
"""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from maskselect.backends.sam_encoder import LayerNorm2d, MLPBlock

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MASK_TOKENS = 4
"""Masks per prompt: a single mask, then three masks of several sizes."""


class Sam(nn.Module):
    """The three networks of a SAM, and its image normalisation.

    Args:
        image_encoder: (B, 3, S, S) to (B, C, h, w), with the attribute `img_size`, S.
        prompt_encoder: points, boxes and masks to tokens.
        mask_decoder: tokens to masks.
    """

    image_encoder: Any
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, image_encoder: nn.Module, prompt_encoder: "PromptEncoder", mask_decoder: "MaskDecoder") -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder, self.mask_decoder = prompt_encoder, mask_decoder
        for name, values in (("pixel_mean", PIXEL_MEAN), ("pixel_std", PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Normalise (..., 3, H, W) from 0 to 255, and pad below and to the right to the encoder's square."""
        normal = (pixels - self.pixel_mean) / self.pixel_std
        height, width = pixels.shape[-2:]
        side = int(self.image_encoder.img_size)
        return F.pad(normal, (0, side - width, 0, side - height))


class PositionEmbeddingRandom(nn.Module):
    """Position embedding by sines and cosines of random frequencies."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, half: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, half, dtype=torch.float32))

    def forward(self, xy: Tensor) -> Tensor:
        """x and y relative to the square, (..., 2) in [0, 1], to (..., C)."""
        angles = math.tau * ((2 * xy - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], -1)


class PromptEncoder(nn.Module):
    """Encodes points, boxes and masks as tokens.

    Args:
        embed_dim: C.
        side: side of the square image in pixels.
        grid: side of the image embedding in cells.
        mask_in_chans: inner channels for masks.
    """

    def __init__(self, embed_dim: int, side: int, grid: int, mask_in_chans: int) -> None:
        super().__init__()
        self.embed_dim, self.side = embed_dim, side
        self.image_embedding_size, self.mask_input_size = (grid, grid), (4 * grid, 4 * grid)
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        # Background, foreground, and the two corners of a box.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, 2, 2),
            LayerNorm2d(mask_in_chans // 4),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, 2, 2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, embed_dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def get_dense_pe(self) -> Tensor:
        """Positions of all cells of the image embedding: (1, C, h, w)."""
        height, width = self.image_embedding_size
        device = self.pe_layer.positional_encoding_gaussian_matrix.device
        ones = torch.ones(height, width, dtype=torch.float32, device=device)
        rows, columns = (ones.cumsum(0) - 0.5) / height, (ones.cumsum(1) - 0.5) / width
        out: Tensor = rearrange(self.pe_layer(torch.stack([columns, rows], -1)), "h w c -> c h w")[None]
        return out

    def points(self, xy: Tensor, labels: Tensor, end: bool = True) -> Tensor:
        """Points (P, T, 2) in pixels of the square to tokens (P, T, C), followed by an end token if `end`.

        `labels` (P, T) are 1 for foreground, 0 for background and -1 for padding.
        """
        if end:
            xy = torch.cat([xy, xy.new_full((len(xy), 1, 2), -0.5)], 1)
            labels = torch.cat([labels, labels.new_full((len(labels), 1), -1)], 1)
        tokens = self._embed(xy)
        kinds = labels[..., None]
        tokens = torch.where(kinds == -1, self.not_a_point_embed.weight, tokens)
        for kind in (0, 1):
            tokens = torch.where(kinds == kind, tokens + self._point(kind), tokens)
        return tokens

    def boxes(self, xyxy: Tensor) -> Tensor:
        """Boxes (P, 4), corners in pixels of the square, to tokens (P, 2, C)."""
        corners = self._embed(rearrange(xyxy, "p (corner xy) -> p corner xy", xy=2))
        return corners + torch.cat([self._point(2), self._point(3)])

    def _embed(self, xy: Tensor) -> Tensor:
        """Position embedding of pixel centres: (..., 2) to (..., C)."""
        out: Tensor = self.pe_layer(((xy + 0.5) / self.side).float())
        return out

    def _point(self, kind: int) -> Tensor:
        weight: Tensor = self.point_embeddings[kind].weight  # type: ignore[assignment]
        return weight


class Attention(nn.Module):
    """Cross-attention with a smaller inner width."""

    def __init__(self, width: int, heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        inner = width // downsample_rate
        self.num_heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Queries (B, T, C) to the same shape; keys and values are (B, K, C)."""
        q, k, v = (
            rearrange(project(x), "b t (h d) -> b h t d", h=self.num_heads)
            for project, x in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))
        )
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        out: Tensor = self.out_proj(rearrange(weights @ v, "b h t d -> b t (h d)"))
        return out


class TwoWayAttentionBlock(nn.Module):
    """Self-attention of tokens, attention of tokens to the image, MLP, and attention of the image to tokens.

    `skip_first_layer_pe` omits the positions and the residual of the self-attention.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, downsample_rate: int = 2, skip_first_layer_pe: bool = False
    ) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.cross_attn_token_to_image = Attention(width, heads, downsample_rate)
        self.cross_attn_image_to_token = Attention(width, heads, downsample_rate)
        self.mlp = MLPBlock(width, hidden, nn.ReLU)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, C) and image tokens (B, N, C), with their positions, to the same."""
        if self.skip_first_layer_pe:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_pe
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """The transformer of the mask decoder."""

    def __init__(self, depth: int, width: int, heads: int, hidden: int, downsample_rate: int = 2) -> None:
        super().__init__()
        self.num_heads = heads
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(width, heads, hidden, downsample_rate, skip_first_layer_pe=number == 0)
            for number in range(depth)
        )
        self.final_attn_token_to_image = Attention(width, heads, downsample_rate)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, image: Tensor, position: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Image and positions (B, C, h, w) and tokens (B, T, C) to tokens and image tokens (B, h w, C)."""
        keys, image_pe = (rearrange(map_, "b c h w -> b (h w) c") for map_ in (image, position))
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe)
        queries = queries + self.final_attn_token_to_image(queries + tokens, keys + image_pe, keys)
        return self.norm_final_attn(queries), keys


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., first width) to (..., last width)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class MaskDecoder(nn.Module):
    """The modules that predict masks from tokens; `backends.sam` runs them.

    Args:
        width: C.
        transformer: transformer of the same width.
        iou_hidden: inner width of the head that predicts IoU.
    """

    def __init__(self, width: int, transformer: TwoWayTransformer, iou_hidden: int = 256) -> None:
        super().__init__()
        self.transformer = transformer
        self.num_mask_tokens = MASK_TOKENS
        self.iou_token, self.mask_tokens = nn.Embedding(1, width), nn.Embedding(MASK_TOKENS, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, 2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(width, width, width, width // 8) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = MLP(width, iou_hidden, iou_hidden, MASK_TOKENS)
