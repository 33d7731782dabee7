"""The decoder that draws the masks at points."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.decoders.points import PointFeatures, PointMaskDecoder

SIZES = {"dim": 16, "detail_dim": 8, "mask_dim": 5, "hidden": 6, "masks": 3, "context_layers": 1, "heads": 2}
CHANNELS = [4, 6, 8]


def tiny() -> PointMaskDecoder:
    torch.manual_seed(0)
    decoder = PointMaskDecoder(CHANNELS, **SIZES).eval()
    torch.nn.init.normal_(decoder.level_embed)
    return decoder


def maps(images: int = 2) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(images, width, 16 >> level, 16 >> level) for level, width in enumerate(CHANNELS)]


POINTS = torch.tensor([[1, 0, 2, 7], [0, 1, 3, 0], [1, 1, 0, 2], [0, 0, 7, 7], [1, 0, 2, 7]])


def condinst_masks(decoder: PointMaskDecoder, features: PointFeatures, point: list[int]) -> Tensor:
    """The masks (K, h, w) of one point as in AdelaiDet, condinst/dynamic_mask_head.py: relative coordinates as input
    (`mask_heads_forward_with_coords`), and 1 x 1 convolutions with generated weights (`mask_heads_forward`)."""
    image, level, row, column = point
    mask_features = features.mask_features[image]
    height, width = mask_features.shape[1:]
    cell = height / features.levels[level].shape[2]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    offsets = torch.stack([x - (column + 0.5) * cell, y - (row + 0.5) * cell]) / (8 * cell)  # of interest: 8 strides
    generated = decoder.kernel_head(features.levels[level][image, :, row, column])
    first, first_bias, second, second_bias = generated.split(decoder.kernel_sizes)
    hidden = F.conv2d(torch.cat([mask_features, offsets])[None], first.view(decoder.hidden, -1, 1, 1), first_bias)
    return F.conv2d(hidden.relu(), second.view(decoder.masks, -1, 1, 1), second_bias)[0]


def test_masks_are_those_of_condinst() -> None:
    decoder = tiny()
    features = decoder(maps())
    logits, _ = decoder.decode(features, POINTS)
    assert logits.shape == (5, 3, 16, 16)
    for row, point in zip(logits, POINTS.tolist(), strict=True):
        assert torch.allclose(row, condinst_masks(decoder, features, point), atol=1e-4)


def test_points_are_cells_of_the_maps_of_predicted_iou() -> None:
    decoder = tiny()
    features = decoder(maps())
    _, iou = decoder.decode(features, POINTS)
    everywhere = decoder.predicted_iou(features)
    assert [one.shape for one in everywhere] == [(2, 3, 8, 8), (2, 3, 4, 4)]
    for row, (image, level, y, x) in zip(iou, POINTS.tolist(), strict=True):
        assert torch.allclose(row, everywhere[level][image, :, y, x], atol=1e-6)
    assert len({tuple(row) for row in iou.tolist()}) == 4  # the last point is the first one


def test_an_image_does_not_depend_on_the_others() -> None:
    decoder, both = tiny(), maps()
    alone = decoder([one[1:] for one in both])
    together = decoder(both)
    points = POINTS[[0, 2]]
    own = points - torch.tensor([1, 0, 0, 0])
    assert torch.allclose(decoder.decode(alone, own)[0], decoder.decode(together, points)[0], atol=1e-5)


def test_no_points_have_no_masks() -> None:
    decoder = tiny()
    logits, iou = decoder.decode(decoder(maps()), POINTS[:0])
    assert logits.shape == (0, 3, 16, 16) and iou.shape == (0, 3)


@pytest.mark.parametrize(("channels", "change"), [([4], {}), (CHANNELS, {"heads": 3}), (CHANNELS, {"detail_dim": 12})])
def test_sizes_must_fit(channels: list[int], change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"at least two maps|must be a multiple"):
        PointMaskDecoder(channels, **SIZES | change)
