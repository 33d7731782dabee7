"""Mask pooling of the ensemble against a naive loop, and what padding, small masks and statistics do to it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from maskselect.encoders.ensemble import EncoderEnsemble, mask_geometry, split, square_images
from maskselect.encoders.position import SinusoidEncoder
from maskselect.encoders.timm import TimmEncoder
from maskselect.ops.masks import pad_to_square

VIT = {"embed_dim": 32, "depth": 1, "num_heads": 2, "class_token": False, "global_pool": ""}


def build(**options: object) -> EncoderEnsemble:
    torch.manual_seed(0)
    vit = TimmEncoder("vit", "vit_tiny_patch16_224", 64, model_args=VIT)
    return EncoderEnsemble([vit, SinusoidEncoder(grid=8, frequencies=3)], **options)  # type: ignore[arg-type]


def random_masks(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, height, width, generator=generator) < 0.3


def naive_area_pool(features: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Per pixel: average the map's value at the cell that holds the pixel. The grid must divide the mask."""
    side, grid = mask.shape[0], features.shape[-1]
    step = side // grid
    total, count = np.zeros(len(features)), 0
    for y in range(side):
        for x in range(side):
            if mask[y, x]:
                total += features[:, y // step, x // step]
                count += 1
    return total / count


def test_pooling_equals_a_naive_loop() -> None:
    ensemble = build(geometry=False)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    masks = random_masks(4, 64, 64)
    maps = ensemble.encode(square_images(image))
    pooled = ensemble.pool(maps, masks).double().numpy()
    assert pooled.shape == (4, ensemble.channels)
    for row, mask in zip(pooled, masks.numpy(), strict=True):
        want = [naive_area_pool(m.features[0].double().numpy(), mask) for m in maps]
        np.testing.assert_allclose(row, np.concatenate(want), atol=1e-5)


def test_area_loses_no_small_mask_and_nearest_does() -> None:
    masks = torch.zeros(64, 64, 64, dtype=torch.bool)
    for i in range(64):
        masks[i, i, (i * 7) % 64] = True
    image = np.full((64, 64, 3), 128, np.uint8)
    soft, hard = build(geometry=False), build(geometry=False, mask_resize="nearest")
    assert (soft.features(image, masks).abs().sum(1) > 0).all()
    vanished = hard.features(image, masks).abs().sum(1) == 0
    assert vanished.any()
    assert not vanished.all()


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (33, 100)])
def test_padding_of_masks_matches_that_of_images(size: tuple[int, int]) -> None:
    ensemble = build()
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    masks = random_masks(3, *size)
    padded = square_images(image)
    square = (padded[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    inside = ensemble.features(image, masks)
    outside = ensemble.features(square, pad_to_square(masks))
    torch.testing.assert_close(inside, outside, atol=2e-2, rtol=0)  # grey is rounded to uint8 in `square`
    position = slice(ensemble.info[0].channels, None)
    torch.testing.assert_close(inside[:, position], outside[:, position])


def test_an_image_is_padded_with_a_colour_as_pil_pads_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (31, 64, 3), np.uint8)
    canvas = Image.new("RGB", (64, 64), (122, 116, 104))
    canvas.paste(Image.fromarray(image), (0, (64 - 31) // 2))
    square = square_images(image, (122 / 255, 116 / 255, 104 / 255))
    np.testing.assert_array_equal((square[0].permute(1, 2, 0) * 255).round().numpy(), np.asarray(canvas))
    ensemble = build(pad_value=[122 / 255, 116 / 255, 104 / 255])
    masks = random_masks(2, 31, 64)
    wanted = ensemble.pool(ensemble.encode(square), masks)
    torch.testing.assert_close(ensemble.features(image, masks), wanted)
    with pytest.raises(ValueError, match="pad_value needs three values"):
        build(pad_value=[0.5, 0.5])


def test_pixels_that_no_patch_reads_weigh_nothing() -> None:
    vit = TimmEncoder("vit", "vit_tiny_patch16_224", 72, model_args=VIT | {"img_size": 72})
    assert vit.info.grid == (4, 4) and vit.info.covered == 64 / 72
    ensemble = EncoderEnsemble([vit], geometry=False)
    image = np.random.default_rng(0).integers(0, 256, (72, 72, 3), np.uint8)
    masks = torch.zeros(2, 72, 72, dtype=torch.bool)
    masks[0, :16, 16:32] = True  # exactly the second patch
    masks[1, 64:, 64:] = True  # only what the patches leave out
    maps = ensemble.maps(image)
    torch.testing.assert_close(ensemble.pool(maps, masks), torch.stack([maps[0].features[0, :, 0, 1], torch.zeros(32)]))


def test_masks_at_another_resolution_give_the_same_features() -> None:
    ensemble = build()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    coarse = random_masks(3, 24, 32)
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(ensemble.features(image, coarse), ensemble.features(image, fine), atol=1e-5, rtol=0)


def test_geometry_by_hand() -> None:
    masks = torch.zeros(2, 10, 10, dtype=torch.bool)
    masks[0, 2:4, 5:10] = True
    want = torch.tensor([[0.1**0.5, 0.5, 0.2, 1.0, 0.4], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(mask_geometry(masks), want)


def test_channels_follow_the_options() -> None:
    assert build().channels == build(geometry=False).channels + 5
    assert sum(info.channels for info in build().info) == 32 + 12


def test_no_masks_and_empty_masks() -> None:
    ensemble = build()
    image = np.zeros((40, 50, 3), np.uint8)
    assert ensemble.features(image, torch.zeros(0, 40, 50, dtype=torch.bool)).shape == (0, ensemble.channels)
    assert (ensemble.features(image, torch.zeros(1, 40, 50, dtype=torch.bool)) == 0).all()


def test_gradient_reaches_nothing() -> None:
    ensemble = build()
    ensemble.train()
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    features = ensemble.pool(ensemble.encode(images), random_masks(2, 64, 64))
    assert not features.requires_grad
    assert not any(p.requires_grad for p in ensemble.parameters())
    assert not any(m.training for m in ensemble.modules() if isinstance(m, TimmEncoder | nn.BatchNorm2d))


def test_batches_are_split_by_image() -> None:
    ensemble = build()
    images = torch.rand(2, 3, 64, 64)
    masks = random_masks(2, 64, 64)
    each = split(ensemble.encode(images))
    torch.testing.assert_close(
        ensemble.pool(each[1], masks), ensemble.pool(ensemble.encode(images[1:]), masks), atol=1e-5, rtol=0
    )
    with pytest.raises(ValueError, match="maps of one image"):
        ensemble.pool(ensemble.encode(images), masks)


def test_bad_construction() -> None:
    with pytest.raises(ValueError, match="different names"):
        EncoderEnsemble([])
    with pytest.raises(ValueError, match="different names"):
        EncoderEnsemble([SinusoidEncoder(), SinusoidEncoder()])
    with pytest.raises(ValueError, match="'bilinear' is unknown"):
        EncoderEnsemble([SinusoidEncoder()], mask_resize="bilinear")  # type: ignore[arg-type]


def test_bfloat16_halves_the_weights_and_hardly_moves_the_features() -> None:
    exact, half = build(), build(dtype="bfloat16")
    assert sum(p.nbytes for p in half.parameters()) * 2 == sum(p.nbytes for p in exact.parameters())
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    found, wanted = half.features(image, random_masks(3, 40, 50)), exact.features(image, random_masks(3, 40, 50))
    assert found.dtype == torch.float32 and not torch.equal(found, wanted)
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)
    with pytest.raises(ValueError, match="dtype 'float8' is unknown"):
        build(dtype="float8")
