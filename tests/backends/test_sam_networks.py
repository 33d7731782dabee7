"""SAM's networks in plain PyTorch give the `segment_anything` package's own numbers."""

from typing import Any

import pytest
import torch
from segment_anything import sam_model_registry

from maskselect.backends.sam import OFFICIAL_SIZES, attend_prompts, build_sam, decode_prompts, load_sam
from maskselect.backends.sam_network import Sam
from tests.backends.sam_package import to_package

EXACT = {"atol": 0.0, "rtol": 0.0}
SMALL: dict[str, Any] = {
    "image_size": 80, "embed_dim": 16, "depth": 3, "num_heads": 2, "window_size": 2, "global_attn_indexes": (1,),
    "prompt_dim": 32, "decoder_mlp_dim": 24, "iou_head_hidden_dim": 16,
}  # fmt: skip
"""A grid of five cells, which windows of two do not divide."""


def lively(**sizes: Any) -> Sam:
    """Random weights, none of them zero."""
    torch.manual_seed(0)
    sam = build_sam(**SMALL | sizes).eval()
    for parameter in sam.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return sam


@pytest.mark.parametrize("use_rel_pos", [False, True])
@torch.no_grad()
def test_images_are_embedded_as_by_the_package(use_rel_pos: bool) -> None:
    sam = lively(use_rel_pos=use_rel_pos)
    theirs = to_package(sam)
    pixels = torch.rand(2, 3, 48, 80) * 255
    prepared = sam.preprocess(pixels)
    torch.testing.assert_close(prepared, theirs.preprocess(pixels), **EXACT)
    torch.testing.assert_close(sam.image_encoder(prepared), theirs.image_encoder(prepared), **EXACT)


@torch.no_grad()
def test_positions_are_resampled_as_by_the_package() -> None:
    """For another grid than that of the weights; the package's zeros of absolute positions do not take part."""
    sam = lively(use_rel_pos=True, global_attn_indexes=(0, 1, 2))
    theirs = to_package(sam)
    x = torch.randn(2, 4, 7, 16)
    for ours, block in zip(sam.image_encoder.blocks, theirs.image_encoder.blocks, strict=True):
        torch.testing.assert_close(ours(x), block(x), **EXACT)


@torch.no_grad()
def test_prompts_are_embedded_as_by_the_package() -> None:
    sam = lively()
    ours, theirs = sam.prompt_encoder, to_package(sam).prompt_encoder
    xy, labels = torch.rand(6, 3, 2) * 80, torch.tensor([-1.0, 0, 1]).repeat(6, 1)
    boxes = torch.rand(6, 4) * 80
    torch.testing.assert_close(ours.points(xy, labels), theirs((xy, labels), None, None)[0], **EXACT)
    torch.testing.assert_close(ours.boxes(boxes), theirs(None, boxes, None)[0], **EXACT)
    both = torch.cat([ours.points(xy, labels, end=False), ours.boxes(boxes)], 1)
    torch.testing.assert_close(both, theirs((xy, labels), boxes, None)[0], **EXACT)
    torch.testing.assert_close(ours.get_dense_pe(), theirs.get_dense_pe(), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("images", [1, 2])
def test_masks_are_the_packages(drawn: bool, images: int) -> None:
    sam = lively()
    theirs = to_package(sam)
    embeddings, sparse = torch.randn(images, 32, 5, 5), torch.randn(images, 3, 2, 32)
    masks = torch.randn(images, 3, 20, 20) if drawn else None
    low, iou = decode_prompts(sam, embeddings, sparse, masks)
    for image in range(images):
        dense = theirs.prompt_encoder(None, torch.zeros(3, 4), None if masks is None else masks[image][:, None])[1]
        wanted = theirs.mask_decoder.predict_masks(
            image_embeddings=embeddings[image : image + 1],
            image_pe=theirs.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse[image],
            dense_prompt_embeddings=dense,
        )
        torch.testing.assert_close((low[image], iou[image]), wanted, atol=2e-5, rtol=1e-4)  # other orders of sums


@torch.no_grad()
def test_the_transformer_alone_is_exactly_the_packages() -> None:
    sam = lively()
    image, position, tokens = torch.randn(2, 32, 5, 5), torch.randn(2, 32, 5, 5), torch.randn(2, 6, 32)
    ours = sam.mask_decoder.transformer(image, position, tokens)
    torch.testing.assert_close(ours, to_package(sam).mask_decoder.transformer(image, position, tokens), **EXACT)


@pytest.mark.parametrize("kind", OFFICIAL_SIZES)
def test_official_sizes_are_the_packages(kind: str) -> None:
    with torch.device("meta"):
        ours, theirs = build_sam(**OFFICIAL_SIZES[kind]), sam_model_registry[kind]()
    shapes = [{name: tensor.shape for name, tensor in sam.state_dict().items()} for sam in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert [block.window_size for block in ours.image_encoder.blocks] == [
        block.window_size for block in theirs.image_encoder.blocks
    ]
    assert ours.image_encoder.blocks[0].attn.num_heads == theirs.image_encoder.blocks[0].attn.num_heads
    assert ours.mask_decoder.transformer.num_heads == theirs.mask_decoder.transformer.num_heads


@torch.no_grad()
def test_the_shipped_one_is_the_packages() -> None:
    sam = load_sam()
    theirs = to_package(sam)
    pixels = torch.randn(1, 3, 256, 256)
    embedding = sam.image_encoder(pixels)
    torch.testing.assert_close(embedding, theirs.image_encoder(pixels), **EXACT)
    assert attend_prompts(sam, embedding, torch.randn(1, 4, 2, 96))[2].shape == (4, 4)
