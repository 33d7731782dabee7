"""Region features, mask stages, merging and the judge against a second writing of their formulas."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import RoIAlign

from maskselect.proposers.codetr.masks import MaskHead, MaskIouHead, merge_stages, outline, region_features
from maskselect.proposers.codetr.model import CoDetr
from tests.proposers.codetr.test_backbone import channel_normed
from tests.proposers.codetr.test_names import TINY, tiny_model

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
BOXES = torch.tensor(
    [[0, 0, 20, 30], [3.3, 4.1, 90.7, 60.2], [10, 10, 12, 11], [0, 0, 96, 64], [5, 5, 61, 61], [40, 2, 41, 63]]
).float()
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])
REGIONS = torch.cat([torch.zeros(len(BOXES), 1), BOXES], 1)


def maps_of(channels: int = TINY.dim, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(5)
    return [torch.randn(1, channels, -(-64 // s), -(-96 // s), dtype=dtype) for s in TINY.strides]


def test_each_region_is_read_from_the_map_of_its_size() -> None:
    boxes = [[0, 0, side, side] for side in (1, 55.9, 56, 111.9, 112, 223, 224, 447, 448, 895, 896, 5000)]
    regions = torch.cat([torch.zeros(len(boxes), 1), torch.tensor(boxes).float()], 1)
    levels = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    maps = [torch.full((1, 1, 512 >> k, 512 >> k), float(k)) for k in range(5)]
    found = region_features(maps, regions, (4, 8, 16, 32, 64), 14)
    # The largest region reaches over its map's edge, where RoIAlign reads zeros.
    assert found[:, 0, 3, 3].tolist()[:-1] == levels[:-1]
    assert float(found[-1].amax()) == levels[-1]


def test_region_features_equal_torchvisions_module_region_by_region() -> None:
    maps = maps_of()
    found = region_features(maps, REGIONS, TINY.strides, 14)
    for region, feature in zip(REGIONS, found, strict=True):
        size = math.sqrt((region[3] - region[1]) * (region[4] - region[2]))
        level = min(max(math.floor(math.log2(size / (14 * TINY.strides[0]) + 1e-6)), 0), 4)
        align = RoIAlign(14, 1 / TINY.strides[level], sampling_ratio=0, aligned=True)
        torch.testing.assert_close(feature, align(maps[level], region[None])[0], **CLOSE)


def conv(x: Tensor, layer: nn.Conv2d, **options: int) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, **options)


def normed_conv(x: Tensor, part: nn.Module, stride: int = 1) -> Tensor:
    first, norm = part[0], part[1]  # type: ignore[index]
    x = F.conv2d(x, first.weight, stride=stride, padding=1)
    return channel_normed(x, norm.weight, norm.bias).clamp(min=0)


def reference_masks(head: MaskHead, features: Tensor, label: int, region: Tensor, finest: Tensor) -> list[Tensor]:
    """All logits of one region, the semantic path computed anew for it and every class's logits made."""
    semantic = normed_conv(normed_conv(finest, head.semantic[0]), head.semantic[1])
    x, logits = normed_conv(features[None], head.instance), []
    for n, side in enumerate((14, 28, 56)):
        stage = head.stages[n]
        coarse = conv(x, head.class_logits[n])[:, label : label + 1]
        align = RoIAlign(side, 1 / TINY.strides[0], sampling_ratio=0, aligned=True)
        around = align(conv(semantic, stage.semantic).clamp(min=0), region[None])
        mixed = conv(torch.cat([x, around, coarse.sigmoid()], 1), stage.mix).clamp(min=0)
        total = F.adaptive_avg_pool2d(mixed, 1).expand_as(mixed)
        for layer, dilation in zip(stage.fuse.dilated, (1, 3, 5), strict=True):
            total = total + conv(mixed, layer, padding=dilation, dilation=dilation).clamp(min=0)
        fused = conv(conv(total, stage.fuse.merge).clamp(min=0), stage.out).clamp(min=0)
        x = torch.cat([fused, coarse.sigmoid()], 1)
        assert x.shape[1] == TINY.dim // 2 ** (n + 1)
        if n < 2:
            x = F.interpolate(x, size=(2 * side, 2 * side), mode="bilinear", align_corners=False)
        logits.append(coarse)
    last = F.interpolate(conv(x, head.final), size=(112, 112), mode="bilinear", align_corners=True)
    return [*logits, last]


@pytest.fixture(scope="module")
def model() -> CoDetr:
    return tiny_model(2)


@torch.no_grad()
def test_mask_stages_equal_their_formulas(model: CoDetr) -> None:
    head, maps = model.mask_head.double(), maps_of(dtype=torch.float64)
    regions = REGIONS.double()
    features = region_features(maps, regions, TINY.strides, 14)
    found = head(features, LABELS, regions, head.semantic_maps(maps[0]))
    assert [logits.shape[-1] for logits in found] == [14, 28, 56, 112]
    for k in range(len(regions)):
        expected = reference_masks(head, features[k], int(LABELS[k]), regions[k], maps[0])
        for logits, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(logits[k : k + 1], wanted, **CLOSE)
    head.float()


@torch.no_grad()
def test_judge_equals_its_formulas(model: CoDetr) -> None:
    judge: MaskIouHead = model.judge
    features, logits = torch.randn(6, TINY.dim, 14, 14), torch.randn(6, 1, 28, 28)
    pooled = logits.sigmoid().unflatten(2, (14, 2)).unflatten(4, (14, 2)).amax((3, 5))
    x = normed_conv(torch.cat([features, pooled], 1), judge.convs[0])
    x = normed_conv(x, judge.convs[1], stride=2)
    hidden = (x.flatten(1) @ judge.hidden.weight.T + judge.hidden.bias).clamp(min=0)
    every = (hidden @ judge.out.weight.T + judge.out.bias).sigmoid()
    expected = torch.stack([every[k, label] for k, label in enumerate(LABELS)])
    torch.testing.assert_close(judge(features, logits, LABELS), expected, **CLOSE)


def laplacian_outline(mask: Tensor) -> Tensor:
    """The published way: a Laplacian of the padded mask, and of the padded mask's complement."""
    kernel = -torch.ones(1, 1, 3, 3)
    kernel[0, 0, 1, 1] = 8
    padded = F.pad(mask.float(), (1, 1, 1, 1))
    bands = [F.conv2d(side, kernel).clamp(min=0) / 9 > 0.1 for side in (padded, 1 - padded)]
    return bands[0] | bands[1]


def test_outline_and_merging_equal_the_laplacian() -> None:
    torch.manual_seed(0)
    blobs = F.interpolate(torch.randn(8, 1, 5, 5), size=28, mode="bicubic")
    blobs = torch.cat([blobs, torch.full((1, 1, 28, 28), 2.0), torch.full((1, 1, 28, 28), -2.0)])
    stages = [blobs, torch.randn(10, 1, 56, 56), torch.randn(10, 1, 112, 112)]
    assert torch.equal(outline(blobs >= 0), laplacian_outline(blobs >= 0))
    expected = [stage.clone() for stage in stages]
    for coarse, fine in pairwise(expected):
        inner = (~laplacian_outline(coarse.sigmoid() >= 0.5)).float()
        inner = F.interpolate(inner, size=fine.shape[-2:], mode="bilinear", align_corners=True) >= 0.5
        enlarged = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        fine[inner] = enlarged[inner]
    torch.testing.assert_close(merge_stages(stages), expected[-1], **CLOSE)
    assert (merge_stages(stages) == stages[-1]).any() and (merge_stages(stages) != stages[-1]).any()


@torch.no_grad()
def test_semantic_maps_are_made_once_and_chunks_change_nothing(model: CoDetr) -> None:
    calls = []
    handle = model.mask_head.semantic[0][0].register_forward_hook(lambda *_: calls.append(1))
    maps = maps_of()
    whole = model.segment(maps, BOXES, LABELS, chunk=150)
    assert len(calls) == 1
    parts = model.segment(maps, BOXES, LABELS, chunk=1)
    assert len(calls) == 2
    handle.remove()
    assert whole[0].shape == (6, 112, 112) and whole[1].shape == (6,)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@torch.no_grad()
def test_segment_judges_the_second_stage_and_merges_from_it_on(model: CoDetr) -> None:
    """Random weights of the judge hardly look at the mask, so what it is given is compared, not what it says."""
    maps, given = maps_of(), []
    handle = model.judge.register_forward_pre_hook(lambda _, inputs: given.append(inputs))
    masks, iou = model.segment(maps, BOXES, LABELS, chunk=150)
    handle.remove()
    (features, judged, labels), expected = given[0], region_features(maps, REGIONS, TINY.strides, 14)
    torch.testing.assert_close(features, expected, **CLOSE)
    assert torch.equal(labels, LABELS) and judged.shape == (6, 1, 28, 28)
    for k in range(len(BOXES)):
        stages = reference_masks(model.mask_head, expected[k], int(LABELS[k]), REGIONS[k], maps[0])
        torch.testing.assert_close(judged[k : k + 1], stages[1], **CLOSE)
        torch.testing.assert_close(masks[k], merge_stages(stages[1:])[0, 0], **CLOSE)
    torch.testing.assert_close(iou, model.judge(features, judged, labels), **CLOSE)


def test_no_boxes_give_no_masks(model: CoDetr) -> None:
    logits, iou = model.segment(maps_of(), BOXES[:0], LABELS[:0], chunk=4)
    assert logits.shape == (0, 112, 112) and iou.shape == (0,)
