"""Boxes out of queries, soft suppression against a loop, pasting against the whole grid; the frame."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.proposers.codetr.config import VARIANTS, CoDetrConfig
from maskselect.proposers.codetr.detections import Detections, paste_masks, soft_nms, top_detections
from maskselect.proposers.codetr.frame import MEAN, STD, scaled_size, to_frame
from tests.proposers.codetr.test_names import TINY


def crowd(count: int, seed: int, labels: int = 3) -> Detections:
    """Boxes around few places, so that many overlap much."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(4, 2, generator=generator) * 100
    start = places[torch.randint(4, (count,), generator=generator)] + torch.randn(count, 2, generator=generator)
    boxes = torch.cat([start, start + 40 + torch.randn(count, 2, generator=generator) * 2], 1)
    scores = torch.rand(count, generator=generator)
    return Detections(boxes, scores, torch.randint(labels, (count,), generator=generator))


def brute_force(found: Detections, iou: float, floor: float) -> list[tuple[int, float]]:
    """mmcv's loop: the best of what is left goes first, the others are weakened, and weak ones vanish."""
    left = [(k, float(s)) for k, s in enumerate(found.scores)]
    boxes, labels, kept = found.boxes_xyxy.double().tolist(), found.labels.tolist(), []
    while left:
        best = max(left, key=lambda pair: pair[1])
        kept.append(best)
        remaining = []
        for k, score in left:
            if k == best[0]:
                continue
            a, b = boxes[k], boxes[best[0]]
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            shared = max(width, 0) * max(height, 0)
            areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
            overlap = shared / (areas - shared)
            weakened = score * (1 - overlap) if labels[k] == labels[best[0]] and overlap >= iou else score
            if weakened >= floor:
                remaining.append((k, weakened))
        left = remaining
    return kept


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("iou", "floor"), [(0.8, 1e-3), (0.5, 0.05), (0.0, 0.2)])
def test_soft_nms_equals_brute_force(seed: int, iou: float, floor: float) -> None:
    found = crowd(60, seed)
    expected, kept = brute_force(found, iou, floor), soft_nms(found, iou, floor)
    index = torch.tensor([k for k, _ in expected])
    torch.testing.assert_close(kept.scores, torch.tensor([s for _, s in expected]), atol=1e-5, rtol=1e-5)
    assert torch.equal(kept.boxes_xyxy, found.boxes_xyxy[index]) and torch.equal(kept.labels, found.labels[index])
    assert (kept.scores.diff() <= 1e-6).all()
    assert not torch.allclose(kept.scores, found.scores[index])


def test_soft_nms_leaves_other_classes_and_empty_sets_alone() -> None:
    found = crowd(20, 0)
    apart = soft_nms(Detections(found.boxes_xyxy, found.scores, torch.arange(20)))
    torch.testing.assert_close(apart.scores, found.scores.sort(descending=True).values)
    assert len(soft_nms(found.keep(torch.zeros(20, dtype=torch.bool)))) == 0
    flat = Detections(torch.zeros(2, 4), torch.tensor([0.5, 0.4]), torch.zeros(2, dtype=torch.long))
    assert soft_nms(flat).scores.tolist() == pytest.approx([0.5, 0.4])


def test_top_detections_pair_queries_with_classes() -> None:
    logits = torch.tensor([[0.0, 3.0], [2.0, -1.0], [-5.0, -4.0]])
    boxes = torch.tensor([[0.5, 0.5, 0.5, 1.0], [0.1, 0.5, 0.4, 0.2], [0.5, 0.5, 0.1, 0.1]])
    found = top_detections(logits, boxes, (200, 100))
    assert found.labels.tolist() == [1, 0, 0]
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 2.0, 0.0]).sigmoid())
    expected = [[50, 0, 150, 100], [0, 40, 60, 60], [50, 0, 150, 100]]  # the second is cut off at the edge
    torch.testing.assert_close(found.boxes_xyxy, torch.tensor(expected).float())


def reference_paste(logits: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Every pixel of the image is asked, as published."""
    x0, y0, x1, y1 = box
    across = (torch.arange(size[1]) + 0.5 - x0) / (x1 - x0) * 2 - 1
    down = (torch.arange(size[0]) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack([across[None].expand(size), down[:, None].expand(size)], -1)
    return F.grid_sample(logits.sigmoid()[None, None], grid[None], align_corners=False)[0, 0] >= 0.5


def test_pasting_equals_the_whole_grid() -> None:
    torch.manual_seed(0)
    logits = F.interpolate(torch.randn(5, 1, 4, 4), size=28, mode="bicubic")[:, 0]
    logits[4] = 30.0
    boxes = [[3.2, 4.7, 30.1, 20.9], [0, 0, 40, 30], [-6.5, 10.2, 12.3, 50.7], [25, 18, 60, 45], [7.5, 3.5, 20.5, 9.5]]
    found = paste_masks(logits, torch.tensor(boxes), (30, 40))
    for k, box in enumerate(torch.tensor(boxes)):
        assert torch.equal(found[k], reference_paste(logits[k], box, (30, 40)))
    assert found.flatten(1).any(1).all()


def test_a_full_mask_is_its_box() -> None:
    boxes = torch.tensor([[4.0, 3, 11, 9], [0, 0, 20, 15], [30, 30, 40, 40], [5, 5, 5, 9]])
    found = paste_masks(torch.full((4, 112, 112), 20.0), boxes, (15, 20))
    expected = torch.zeros(4, 15, 20, dtype=torch.bool)
    expected[0, 3:9, 4:11], expected[1] = True, True
    assert torch.equal(found, expected)
    assert paste_masks(torch.zeros(0, 112, 112), torch.zeros(0, 4), (15, 20)).shape == (0, 15, 20)


def test_coco_frame_masks_its_padding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8)
    frame = to_frame(image, TINY)
    assert scaled_size(50, 30, TINY) == (96, 58)  # min(96 / 50, 64 / 30) = 1.92
    assert frame.pixels.shape == (1, 3, 96, 64) and frame.extent == (58, 96)
    assert frame.scale == (58 / 30, 96 / 50)
    assert not frame.padding[0, :, :58].any() and frame.padding[0, :, 58:].all()
    assert not frame.pixels[..., 58:].any()
    scaled = cv2.resize(image, (58, 96), interpolation=cv2.INTER_LINEAR)
    normal = (torch.from_numpy(scaled).double() - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(frame.pixels[0, :, :, :58].permute(1, 2, 0).double(), normal, atol=1e-5, rtol=1e-5)


def test_lvis_frame_is_a_grey_square_without_mask() -> None:
    image = np.full((40, 80, 3), 200, np.uint8)
    frame = to_frame(image, CoDetrConfig(**(vars(TINY) | {"square_canvas": True, "short_side": 96})))
    assert frame.pixels.shape == (1, 3, 96, 96) and frame.extent == (96, 96)
    assert not frame.padding.any() and frame.scale == (1.2, 1.2)
    raw = frame.pixels[0] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    torch.testing.assert_close(raw[:, :48], torch.full((3, 48, 96), 200.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(raw[:, 48:], torch.full((3, 48, 96), 114.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("variant", "size", "scaled", "canvas"),
    [
        ("coco", (480, 640), (1280, 1707), (1280, 1728)),
        ("coco", (640, 480), (1707, 1280), (1728, 1280)),
        ("coco", (300, 1200), (512, 2048), (512, 2048)),
        ("coco", (1, 5000), (1, 2048), (32, 2048)),
        ("lvis", (480, 640), (1152, 1536), (1536, 1536)),
    ],
)
def test_published_sizes(variant: str, size: tuple[int, int], scaled: tuple[int, int], canvas: tuple[int, int]) -> None:
    assert scaled_size(*size, VARIANTS[variant]) == scaled
    frame = to_frame(np.zeros((*size, 3), np.uint8), VARIANTS[variant])
    assert frame.pixels.shape[-2:] == canvas == frame.padding.shape[-2:]
