"""Segment Anything: builds its networks, reads their weights, and runs prompts through the decoder.

Two kinds. *Official*: ViT-B, L and H from the published `.pth` files. *Compact*: the same networks at a size that
trains on two CPU cores, from this repository's own checkpoints.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from maskselect.backends import checkpoints, needs
from maskselect.backends.config_tree import Node, arguments_of
from maskselect.backends.pickled import read_state_dict
from maskselect.backends.sam_attention import attend_two_ways
from maskselect.backends.sam_encoder import ImageEncoderViT
from maskselect.backends.sam_network import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from maskselect.backends.weightless import reads_weights
from maskselect.ops.paths import expanded
from maskselect.structures.needs import Arguments, Need

SYSTEM = "sam"
"""`system` field of a compact SAM's card."""

_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
OFFICIAL = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
"""Published file of each official model. The six hex digits are the beginning of the file's SHA-256 (README of
facebookresearch/segment-anything)."""

_OF_ALL = {
    "image_size": 1024,
    "patch_size": 16,
    "window_size": 14,
    "use_rel_pos": True,
    "prompt_dim": 256,
    "decoder_heads": 8,
    "decoder_mlp_dim": 2048,
    "iou_head_hidden_dim": 256,
}
OFFICIAL_SIZES: dict[str, dict[str, Any]] = {
    "vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11), **_OF_ALL},
    "vit_l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23), **_OF_ALL},
    "vit_h": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31), **_OF_ALL},
}
"""Arguments of `build_sam` for each official model."""

MODEL_TYPES = ("compact", *OFFICIAL, "vit_t")
"""What `load_sam` takes. "vit_t" is MobileSAM, whose published file has no digits in its name."""


def build_sam(
    image_size: int = 256,
    patch_size: int = 16,
    embed_dim: int = 128,
    depth: int = 6,
    num_heads: int = 4,
    mlp_ratio: float = 4.0,
    window_size: int = 8,
    global_attn_indexes: tuple[int, ...] = (1, 3, 5),
    use_rel_pos: bool = False,
    prompt_dim: int = 96,
    mask_in_chans: int = 16,
    decoder_depth: int = 2,
    decoder_heads: int = 2,
    decoder_mlp_dim: int = 192,
    iou_head_hidden_dim: int = 64,
) -> Sam:
    """A Segment Anything model with random weights; by default the compact one.

    image_size: side in pixels of the square that the encoder reads. Low-res logits have 4 * image_size / patch_size.
    embed_dim, depth, num_heads, mlp_ratio: the ViT. Its blocks attend within windows of `window_size` cells, those in
        `global_attn_indexes` everywhere.
    prompt_dim: channels of the image embedding, the prompts and the decoder.

    Raises ValueError when patch and image do not divide.
    """
    if image_size % patch_size:
        raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}")
    grid = image_size // patch_size
    encoder = ImageEncoderViT(
        image_size, patch_size, embed_dim, depth, num_heads, mlp_ratio, prompt_dim, use_rel_pos, window_size,
        tuple(global_attn_indexes),
    )  # fmt: skip
    encoder.pos_embed.data = _sine_positions(grid, embed_dim)
    prompts = PromptEncoder(prompt_dim, image_size, grid, mask_in_chans)
    transformer = TwoWayTransformer(decoder_depth, prompt_dim, decoder_heads, decoder_mlp_dim)
    return Sam(encoder, prompts, MaskDecoder(prompt_dim, transformer, iou_head_hidden_dim))


def _sine_positions(grid: int, channels: int) -> Tensor:
    """2-D sinusoidal position map, (1, grid, grid, channels)."""
    quarter = channels // 4
    frequency = 1.0 / 10.0 ** (2 * torch.arange(quarter) / quarter)
    angle = torch.arange(grid)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], 1)
    both = torch.cat([axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)], 2)
    return nn.functional.pad(both, (0, channels - both.shape[-1]))[None].clone()


def attend_prompts(
    sam: Sam, embeddings: Tensor, sparse: Tensor, masks: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The decoder's transformer for many prompts on many images at once.

    embeddings: (B, C, h, w) of the images.  sparse: (B, P, T, C) of the prompts, by the prompt encoder.
    masks: (B, P, 4h, 4w) low-res logits given as prompts, or None.
    Returns mask tokens (B * P, 4, C), image tokens (B * P, C, h, w) and predicted IoU (B * P, 4). The first of the four
    is the single-mask output.
    """
    images, prompts = sparse.shape[:2]
    decoder, encoder = sam.mask_decoder, sam.prompt_encoder
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(images * prompts, -1, -1), sparse.flatten(0, 1).to(own.dtype)], 1)
    position = encoder.get_dense_pe().to(own.dtype)
    if masks is None:
        source = embeddings + encoder.no_mask_embed.weight[:, :, None, None].to(own.dtype)
    else:
        drawn = encoder.mask_downscaling(masks.flatten(0, 1)[:, None].float()).to(own.dtype)
        source = embeddings.repeat_interleave(prompts, 0) + drawn
    if len(source) == 1:
        tokens, pixels = attend_two_ways(decoder.transformer, _as_tokens(source), _as_tokens(position), tokens)
    else:
        source = source if masks is not None else source.repeat_interleave(prompts, 0)
        tokens, pixels = decoder.transformer(source, position.expand(len(source), -1, -1, -1), tokens)
    pixels = rearrange(pixels, "n (h w) c -> n c h w", h=source.shape[-2])
    return tokens[:, 1 : 1 + decoder.num_mask_tokens], pixels, decoder.iou_prediction_head(tokens[:, 0])


def _as_tokens(image: Tensor) -> Tensor:
    """(1, C, h, w) to (1, h w, C)."""
    return rearrange(image, "1 c h w -> 1 (h w) c").contiguous()


def draw_masks(sam: Sam, mask_tokens: Tensor, pixels: Tensor) -> Tensor:
    """Low-res logits (N, 4, 4h, 4w) from what `attend_prompts` returns, or from some rows of it."""
    decoder = sam.mask_decoder
    fine = decoder.output_upscaling(pixels)
    heads = zip(decoder.output_hypernetworks_mlps, mask_tokens.unbind(1), strict=True)
    weights = torch.stack([head(token) for head, token in heads], 1)
    drawn = weights @ rearrange(fine, "n c h w -> n c (h w)")
    return rearrange(drawn, "n k (h w) -> n k h w", h=fine.shape[-2])


def decode_prompts(sam: Sam, embeddings: Tensor, sparse: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`attend_prompts` and `draw_masks`: logits (B, P, 4, 4h, 4w) and predicted IoU (B, P, 4)."""
    mask_tokens, pixels, iou = attend_prompts(sam, embeddings, sparse, masks)
    images = len(sparse)
    low = rearrange(draw_masks(sam, mask_tokens, pixels), "(b p) k h w -> b p k h w", b=images)
    return low, rearrange(iou, "(b p) k -> b p k", b=images)


def load_sam(model_type: str = "compact", checkpoint: str | Path = "sam") -> Sam:
    """A SAM in evaluation mode, frozen, on the CPU.

    model_type: one of MODEL_TYPES.
    checkpoint: for "compact" a name or path as in `checkpoints.find_checkpoint`; else the published .pth or .pt file.

    Raises FileNotFoundError when the file is missing, ValueError when it is damaged, of another model, or not what it
    claims to be.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"SAM model_type {model_type!r} is unknown; expected one of {', '.join(MODEL_TYPES)}")
    if model_type == "vit_t":
        from maskselect.backends.mobile_sam import load_mobile_sam  # noqa: PLC0415  timm loads slowly; few ask for it

        return load_mobile_sam(expanded(checkpoint))
    sam = _load_compact(checkpoint) if model_type == "compact" else _load_official(model_type, expanded(checkpoint))
    return sam.eval().requires_grad_(False)


def sam_needs(arguments: Arguments) -> list[Need]:
    """What a class with the arguments of `load_sam` needs."""
    kind, path = arguments.get("model_type", "compact"), arguments.get("checkpoint", "sam")
    if kind == "compact":
        return needs.checkpoint(path, "compact SAM")
    if kind == "vit_t":
        from maskselect.backends.mobile_sam import URL  # noqa: PLC0415  timm loads slowly; few ask for it

        return needs.file(path, "MobileSAM", f"curl -L --create-dirs -o {path} {URL}")
    if kind not in OFFICIAL:
        return []  # the class itself says so
    return needs.file(path, f"SAM {kind}", f"curl -L --create-dirs -o {path} {_URL}{OFFICIAL[kind]}")


def _load_compact(checkpoint: str | Path) -> Sam:
    card = checkpoints.read_card(checkpoint)
    if card["system"] != SYSTEM:
        raise ValueError(f"checkpoint {checkpoint} is of system {card['system']!r}; expected {SYSTEM!r}")
    try:
        sam = build_sam(**_sizes(card.get("config", {})))
    except TypeError as error:
        raise ValueError(f"card of checkpoint {checkpoint}: config does not fit build_sam: {error}") from error
    checkpoints.load_into(sam, checkpoint, SYSTEM)
    return sam


def _sizes(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `build_sam` from a card: given as such, or as the `model` of the task that trained it."""
    return config if Node.of(config) is None else arguments_of(config).get("model") or {}


def _load_official(model_type: str, path: Path) -> Sam:
    name = OFFICIAL[model_type]
    if not reads_weights():
        return build_sam(**OFFICIAL_SIZES[model_type])
    if not path.is_file():
        raise FileNotFoundError(f"SAM checkpoint {path} not found; get it with: curl -LO {_URL}{name}")
    if path.name in OFFICIAL.values():
        _check_published(path)
    sam = build_sam(**OFFICIAL_SIZES[model_type])
    tensors = read_state_dict(path, "SAM", f"get it with: curl -LO {_URL}{name}")
    checkpoints.load_strictly(sam, tensors, str(path))
    return sam


def _check_published(path: Path) -> None:
    """Compare a file that carries a published name with the digits in that name."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    expected = path.stem.rsplit("_", 1)[1]
    if not digest.startswith(expected):
        raise ValueError(
            f"SAM checkpoint {path} is damaged or not the published file: its SHA-256 begins with {digest[:6]}, "
            f"expected {expected}; get it with: curl -LO {_URL}{path.name}"
        )
