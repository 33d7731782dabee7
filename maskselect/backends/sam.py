"""Segment Anything: builds the networks, loads their weights, and runs prompts through the decoder.

*Official* models are ViT-B, L and H from the published `.pth` files. A *compact* model has the same networks at a size
that trains on two CPU cores, and is loaded from a checkpoint of this project.
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
"""The `system` field in the card of a compact SAM."""

_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
OFFICIAL = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
"""Published file of each official model. The six hex digits are the first of the SHA-256 of the file (README of
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
"""Models that `load_sam` supports. "vit_t" is MobileSAM."""


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
    """Build a Segment Anything model with random weights; by default the compact one.

    Args:
        image_size: side of the encoder's square input in pixels. Low-res logits have the side
            4 * image_size / patch_size.
        embed_dim, depth, num_heads, mlp_ratio: sizes of the ViT.
        window_size, global_attn_indexes: side of the attention windows in cells, and blocks with global attention.
        prompt_dim: channels of the image embedding, the prompts and the decoder.

    Raises:
        ValueError: image_size is not a multiple of patch_size.
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
    """2-D sinusoidal position embedding, (1, grid, grid, channels)."""
    quarter = channels // 4
    frequency = 1.0 / 10.0 ** (2 * torch.arange(quarter) / quarter)
    angle = torch.arange(grid)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], 1)
    both = torch.cat([axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)], 2)
    return nn.functional.pad(both, (0, channels - both.shape[-1]))[None].clone()


def attend_prompts(
    sam: Sam, embeddings: Tensor, sparse: Tensor, masks: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the decoder's transformer for many prompts on many images.

    Args:
        sam: the model.
        embeddings: (B, C, h, w) image embeddings.
        sparse: (B, P, T, C) prompts, from the prompt encoder.
        masks: (B, P, 4h, 4w) low-res logits as prompts, or None.

    Returns:
        Mask tokens (B * P, 4, C), image tokens (B * P, C, h, w) and predicted IoU (B * P, 4). The first of the four is
        the single-mask output.
    """
    images, prompts = sparse.shape[:2]
    decoder, encoder = sam.mask_decoder, sam.prompt_encoder
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output.expand(images * prompts, -1, -1), sparse.flatten(0, 1).to(output.dtype)], 1)
    position = encoder.get_dense_pe().to(output.dtype)
    if masks is None:
        source = embeddings + encoder.no_mask_embed.weight[:, :, None, None].to(output.dtype)
    else:
        dense = encoder.mask_downscaling(masks.flatten(0, 1)[:, None].float()).to(output.dtype)
        source = embeddings.repeat_interleave(prompts, 0) + dense
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


def upscale_masks(sam: Sam, mask_tokens: Tensor, pixels: Tensor) -> Tensor:
    """Low-res logits (N, 4, 4h, 4w) from mask tokens and image tokens of `attend_prompts`, or some rows of them."""
    decoder = sam.mask_decoder
    fine = decoder.output_upscaling(pixels)
    heads = zip(decoder.output_hypernetworks_mlps, mask_tokens.unbind(1), strict=True)
    weights = torch.stack([head(token) for head, token in heads], 1)
    logits = weights @ rearrange(fine, "n c h w -> n c (h w)")
    return rearrange(logits, "n k (h w) -> n k h w", h=fine.shape[-2])


def decode_prompts(sam: Sam, embeddings: Tensor, sparse: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`attend_prompts` and `upscale_masks`: logits (B, P, 4, 4h, 4w) and predicted IoU (B, P, 4)."""
    mask_tokens, pixels, iou = attend_prompts(sam, embeddings, sparse, masks)
    images = len(sparse)
    low = rearrange(upscale_masks(sam, mask_tokens, pixels), "(b p) k h w -> b p k h w", b=images)
    return low, rearrange(iou, "(b p) k -> b p k", b=images)


def load_sam(model_type: str = "compact", checkpoint: str | Path = "sam") -> Sam:
    """Load a frozen SAM in evaluation mode on the CPU.

    Args:
        model_type: one of MODEL_TYPES.
        checkpoint: for "compact", a name or path as in `checkpoints.find_checkpoint`; else the published .pth or .pt
            file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, holds another model, or is not the published file of its name.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"SAM model_type {model_type!r} is unknown; expected one of {', '.join(MODEL_TYPES)}")
    if model_type == "vit_t":
        from maskselect.backends.mobile_sam import load_mobile_sam  # noqa: PLC0415  importing timm is slow

        return load_mobile_sam(expanded(checkpoint))
    sam = _load_compact(checkpoint) if model_type == "compact" else _load_official(model_type, expanded(checkpoint))
    return sam.eval().requires_grad_(False)


def sam_needs(arguments: Arguments) -> list[Need]:
    """The needs of a class with the arguments of `load_sam`."""
    kind, path = arguments.get("model_type", "compact"), arguments.get("checkpoint", "sam")
    if kind == "compact":
        return needs.checkpoint(path, "compact SAM")
    if kind == "vit_t":
        from maskselect.backends.mobile_sam import URL  # noqa: PLC0415  importing timm is slow

        return needs.file(path, "MobileSAM", f"curl -L --create-dirs -o {path} {URL}")
    if kind not in OFFICIAL:
        return []  # the constructor reports it
    return needs.file(path, f"SAM {kind}", f"curl -L --create-dirs -o {path} {_URL}{OFFICIAL[kind]}")


def _load_compact(checkpoint: str | Path) -> Sam:
    card = checkpoints.read_card(checkpoint, SYSTEM)
    config = card.get("config", {})  # arguments of `build_sam`, or the task that trained the model
    sizes = config if Node.of(config) is None else arguments_of(config).get("model") or {}
    try:
        sam = build_sam(**sizes)
    except TypeError as error:
        raise ValueError(f"card of checkpoint {checkpoint}: config does not fit build_sam: {error}") from error
    checkpoints.load_into(sam, checkpoint, SYSTEM)
    return sam


def _load_official(model_type: str, path: Path) -> Sam:
    hint = f"get it with: curl -LO {_URL}{OFFICIAL[model_type]}"
    if not reads_weights():
        return build_sam(**OFFICIAL_SIZES[model_type])
    if not path.is_file():
        raise FileNotFoundError(f"SAM checkpoint {path} not found; {hint}")
    if path.name in OFFICIAL.values():
        _check_digest(path)
    sam = build_sam(**OFFICIAL_SIZES[model_type])
    checkpoints.load_strictly(sam, read_state_dict(path, "SAM", hint), str(path))
    return sam


def _check_digest(path: Path) -> None:
    """Compare the SHA-256 of a file that has a published name with the digits in the name."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    expected = path.stem.rsplit("_", 1)[1]
    if not digest.startswith(expected):
        raise ValueError(
            f"SAM checkpoint {path} is damaged or not the published file: its SHA-256 begins with {digest[:6]}, "
            f"expected {expected}; get it with: curl -LO {_URL}{path.name}"
        )
