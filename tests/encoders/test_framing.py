"""LLM-Seg's framing and pooling against what its released code says, written out literally."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.encoders.framing import cornered_images, framed_masks
from maskselect.encoders.position import SinusoidEncoder
from maskselect.encoders.timm import TimmEncoder
from maskselect.ops.pooling import FINENESS, cell_weights, mask_pool
from maskselect.structures.features import FeatureInfo, FeatureLevel
from maskselect.systems.preparing import fingerprint
from tests.systems.tiny import tiny_llmseg

VIT = {"embed_dim": 32, "depth": 1, "num_heads": 2, "class_token": False, "global_pool": ""}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dino_like(**options: Any) -> EncoderEnsemble:
    torch.manual_seed(0)
    vit = TimmEncoder("vit", "vit_tiny_patch16_224", 64, final_norm=True, mean=MEAN, std=STD, model_args=VIT)
    return EncoderEnsemble([vit], geometry=False, **({"framing": "corner", "mask_resize": "fine"} | options))


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def random_masks(count: int, height: int, width: int) -> Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(1)) < 0.3


def literal_pool(features: Tensor, masks: Tensor, antialias: bool) -> Tensor:
    """The released mask pooling: square masks (N, S, S) and map (C, h, w), both brought to the fine grid."""
    fine = features.shape[-1] * FINENESS
    soft = F.interpolate(masks[:, None].double(), (fine, fine), mode="bilinear", antialias=antialias)[:, 0]
    enlarged = F.interpolate(features[None].double(), (fine, fine), mode="bilinear")[0]
    return torch.einsum("nhw,chw->nc", soft, enlarged) / (soft.sum((1, 2))[:, None] + 1e-8)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("side", [40, 96, 250])
def test_weights_on_cells_equal_pooling_of_the_enlarged_map(antialias: bool, side: int) -> None:
    features = torch.randn(5, 12, 12, generator=torch.Generator().manual_seed(0))
    masks = torch.cat([random_masks(20, side, side), torch.zeros(1, side, side, dtype=torch.bool)])
    masks[0] = False
    masks[0, 3, 5] = True
    weights = cell_weights(masks, (12, 12), "fine" if antialias else "fine_aliased")
    pooled = mask_pool(features, weights)
    torch.testing.assert_close(pooled.double(), literal_pool(features, masks, antialias), atol=1e-5, rtol=1e-5)
    assert (pooled[-1] == 0).all()
    total = F.interpolate(masks[:, None].float(), (48, 48), mode="bilinear", antialias=antialias).sum((1, 2, 3))
    torch.testing.assert_close(weights.sum((1, 2)), total, atol=1e-3, rtol=1e-4)


def test_antialiasing_matters_to_a_small_mask() -> None:
    masks = torch.zeros(1, 512, 512, dtype=torch.bool)
    masks[0, 13, 13] = True
    assert float(cell_weights(masks, (8, 8), "fine").sum()) > 0
    assert float(cell_weights(masks, (8, 8), "fine_aliased").sum()) == 0
    assert cell_weights(masks[:0], (8, 8), "fine").shape == (0, 8, 8)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (33, 100), (64, 64), (200, 31)])
def test_corner_framing_scales_normalises_and_then_pads_with_zeros(size: tuple[int, int]) -> None:
    info = FeatureInfo("vit", (FeatureLevel(32, 16),), 64, (4, 4), MEAN, STD)
    image = image_of(*size)
    scale = 64 / max(size)
    height, width = (int(side * scale + 0.5) for side in size)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    scaled = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    wanted = F.pad((torch.from_numpy(scaled).permute(2, 0, 1) / 255 - mean) / std, (0, 64 - width, 0, 64 - height))
    framed = (cornered_images(image, info)[0] - mean) / std
    torch.testing.assert_close(framed, wanted, atol=1.5 / 255 / 0.22, rtol=0)  # PIL and torch may round differently
    assert float((framed - wanted).abs().mean()) < 1e-3
    assert (framed[:, height:] == 0).all() and (framed[:, :, width:] == 0).all()


def test_masks_are_framed_as_the_image_is() -> None:
    masks = random_masks(2, 3, 5)
    framed = framed_masks(masks, "corner")
    assert framed.shape == (2, 5, 5) and torch.equal(framed[:, :3], masks) and not framed[:, 3:].any()
    centred = framed_masks(masks, "centre")
    assert torch.equal(centred[:, 1:4], masks)


def test_features_of_an_ensemble_are_the_released_ones() -> None:
    ensemble, image = dino_like(), image_of(40, 100)
    masks = random_masks(3, 40, 100)
    info = ensemble.info[0]
    maps = ensemble.encode(cornered_images(image, info))
    padded = F.pad(masks, (0, 0, 0, 60))
    wanted = literal_pool(maps[0].features[0], padded, antialias=True)
    torch.testing.assert_close(ensemble.features(image, masks).double(), wanted, atol=1e-5, rtol=1e-5)
    centred = dino_like(framing="centre", mask_resize="area").features(image, masks)
    assert not torch.allclose(ensemble.features(image, masks), centred, atol=1e-2)


def test_a_mask_at_half_the_resolution_gives_much_the_same() -> None:
    ensemble, image = dino_like(), image_of(96, 128)
    coarse = torch.zeros(1, 48, 64, dtype=torch.bool)
    coarse[0, 4:30, 10:50] = True
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(ensemble.features(image, coarse), ensemble.features(image, fine), atol=2e-2, rtol=0)


def test_an_unknown_framing_is_told() -> None:
    with pytest.raises(ValueError, match="framing 'left' is unknown"):
        EncoderEnsemble([SinusoidEncoder()], framing="left")  # type: ignore[arg-type]


def test_frozen_features_are_kept_apart_by_framing() -> None:
    plain, cornered = tiny_llmseg(), tiny_llmseg()
    assert fingerprint(plain) == fingerprint(cornered)
    cornered.encoders.framing = "corner"
    assert fingerprint(plain) != fingerprint(cornered)
