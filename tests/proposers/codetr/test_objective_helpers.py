"""What is thrown away after training, denoising, auxiliary head, pixel head, and the masks' own losses, by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert

from maskselect.proposers.codetr.assignment import Targets, pair_loss
from maskselect.proposers.codetr.auxiliary import AuxiliaryHead, assign_many
from maskselect.proposers.codetr.config import compact_config
from maskselect.proposers.codetr.denoising import Denoising, shake
from maskselect.proposers.codetr.mask_objective import mask_iou, mask_losses, shifted
from maskselect.proposers.codetr.model import CoDetr
from maskselect.proposers.codetr.pixel_head import PixelHead
from maskselect.proposers.codetr.positions import Layout

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "depth": 1,
    "num_heads": 2,
    "window_size": 4,
    "global_blocks": [0],
    "patch_size": 8,
    "dim": 32,
    "ffn_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 8,
    "iou_dim": 16,
    "long_side": 64,
    "short_side": 64,
}


def boxed(*boxes: tuple[int, int, int, int], side: int = 64) -> Targets:
    """Objects that fill their boxes (x0, y0, x1, y1) on a square canvas."""
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    shares = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / side
    return Targets(box_convert(shares, "xyxy", "cxcywh"), torch.zeros(len(boxes), dtype=torch.long), masks)


FOUR = boxed((4, 4, 20, 28), (30, 8, 60, 24), (10, 36, 26, 60), (40, 40, 52, 52))
ONE = boxed((16, 24, 40, 44))
NONE = boxed()


def pyramid(count: int, dim: int = 32) -> tuple[Tensor, Layout]:
    """Random cells (B, S, dim) of a canvas of 64 pixels, strides 2 to 32."""
    shapes = [(s, s) for s in (32, 16, 8, 4, 2)]
    layout = Layout.of(torch.zeros(count, 64, 64, dtype=torch.bool), shapes)
    return torch.randn(count, sum(h * w for h, w in shapes), dim), layout


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_boxes_are_shaken_as_far_as_said(noise: float) -> None:
    torch.manual_seed(0)
    boxes = torch.cat([torch.rand(50, 2) * 0.2 + 0.4, torch.rand(50, 2) * 0.1 + 0.1], 1)
    shaken = shake([boxes, boxes[:3]], noise)
    assert shaken.boxes.shape == (2, 100, 4)
    assert shaken.asked.sum(1).tolist() == [100, 6]
    assert [(q.tolist(), g.tolist()) for q, g in shaken.pairs] == [(list(range(n)),) * 2 for n in (50, 3)]
    true, half = box_convert(boxes, "cxcywh", "xyxy"), boxes[:, 2:].repeat(1, 2) / 2
    found = (box_convert(shaken.boxes[0], "cxcywh", "xyxy") - true.repeat(2, 1)).abs() / half.repeat(2, 1) / noise
    assert found[:50].max() <= 1 + 1e-4 and found[:50].max() > 0.9
    if noise < 0.5:  # no edge of such a box can pass the one opposite, nor leave the picture
        assert found[50:].min() >= 1 - 1e-4 and found[50:].max() <= 2 + 1e-4
    assert (shaken.boxes[..., 2:] >= 0).all() and (shaken.boxes >= 0).all() and (shaken.boxes <= 1).all()


def test_what_fills_up_is_not_asked() -> None:
    torch.manual_seed(0)
    logits, boxes = torch.randn(2, 8, 1, requires_grad=True), torch.rand(2, 8, 4) * 0.2 + 0.3
    shaken = shake([FOUR.boxes, ONE.boxes], 1.0)
    parts = pair_loss(logits, boxes, [FOUR, ONE], shaken.pairs, shaken.asked)
    parts["class"].backward()
    assert logits.grad is not None and logits.grad[0].all()
    assert logits.grad[1, :2].all() and not logits.grad[1, 2:].any()
    # The little shaken one is to be a thing, the much shaken one is not.
    assert logits.grad[1, 0] < 0 < logits.grad[1, 1]


def test_denoising_trains_decoder_and_cells() -> None:
    torch.manual_seed(0)
    model, task, (memory, layout) = CoDetr(compact_config(TINY)), Denoising(32), pyramid(2)
    memory.requires_grad_()
    layers = task.losses(model.query_head, memory, layout, [FOUR, ONE])
    assert len(layers) == 2 and all(set(layer) == {"class", "l1", "giou"} for layer in layers)
    torch.stack([value for layer in layers for value in layer.values()]).sum().backward()
    assert memory.grad is not None and memory.grad.abs().sum() > 0
    assert task.content.grad is not None and task.content.grad.abs().sum() > 0
    assert task.losses(model.query_head, memory, layout, [NONE, NONE]) == []
    # Untrained branches leave a box as it is, so boxes that are not shaken have no loss.
    still = Denoising(32, noise=0.0).losses(model.query_head, memory, layout, [FOUR, ONE])
    assert float(still[0]["l1"].detach()) < 1e-5 and float(still[0]["giou"].detach()) < 1e-4


def iou(a: list[float], b: list[float]) -> float:
    sides = [
        min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2) - max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2) for k in (0, 1)
    ]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_many_cells_answer_for_an_object() -> None:
    """ATSS written out with loops."""
    layout = pyramid(1)[1]
    logits, usable = layout.first_boxes()
    first, good = logits[0].sigmoid(), usable[0].clone()
    good[100:200] = False
    levels, takers = [h * w for h, w in layout.shapes], dict[int, list[tuple[float, int]]]()
    for g, box in enumerate(FOUR.boxes.tolist()):
        near, start = [], 0
        for count in levels:
            cells = [s for s in range(start, start + count) if good[s]]
            near += sorted(cells, key=lambda s: math.dist(first[s, :2].tolist(), box[:2]))[:9]
            start += count
        overlaps = {s: iou(first[s].tolist(), box) for s in near}
        mean = sum(overlaps.values()) / len(near)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in overlaps.values()) / (len(near) - 1))
        for s, value in overlaps.items():
            if value >= mean + deviation and all(abs(float(first[s, k]) - box[k]) <= box[k + 2] / 2 for k in (0, 1)):
                takers.setdefault(s, []).append((value, g))
    found = assign_many(first, good, FOUR.boxes, levels)
    assert {s: max(those)[1] for s, those in takers.items()} == {
        int(s): int(found[s]) for s in (found >= 0).nonzero()[:, 0]
    }
    assert (found[~good] < 0).all() and set(found.unique().tolist()) == {-1, 0, 1, 2, 3}
    assert (assign_many(first, good, NONE.boxes, levels) == -1).all()


def test_auxiliary_head_learns_cells() -> None:
    torch.manual_seed(0)
    head, (memory, layout) = AuxiliaryHead(32), pyramid(2)
    memory.requires_grad_()
    optimizer, losses = torch.optim.Adam(head.parameters(), 1e-2), []
    for _ in range(15):
        loss = torch.stack(list(head.loss(memory, layout, [FOUR, NONE]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0] and memory.grad is not None and memory.grad.isfinite().all()


def test_pixel_head_asks_for_things_outlines_and_boxes() -> None:
    head = PixelHead(96).requires_grad_(False)
    with torch.no_grad():
        head.maps.weight.copy_(torch.eye(96)[:, :, None, None])
        head.maps.bias.zero_()  # what the features say, unshuffled, is what the head says
    boxes = [(4, 4, 20, 28), (32, 8, 60, 24)]
    said = torch.full((1, 6, 16, 16), -30.0)
    for x0, y0, x1, y1 in boxes:
        for row in range(y0 // 4, y1 // 4):
            for column in range(x0 // 4, x1 // 4):
                reach = (column + 0.5 - x0 / 4, row + 0.5 - y0 / 4, x1 / 4 - column - 0.5, y1 / 4 - row - 0.5)
                said[0, 2:, row, column] = torch.tensor([math.log(math.expm1(r * 0.7 / 4)) for r in reach])
                said[0, 0, row, column] = 30.0
        # An outline is where the pixel above or to the left is another's.
        for row in range(y0 // 4, y1 // 4 + 1):
            for column in range(x0 // 4, x1 // 4 + 1):
                inside = [
                    y0 <= 4 * r < y1 and x0 <= 4 * c < x1
                    for r, c in ((row, column), (row - 1, column), (row, column - 1))
                ]
                if len(set(inside[:2])) == 2 or inside[0] != inside[2]:
                    said[0, 1, row, column] = 30.0
    right = torch.nn.functional.pixel_unshuffle(said, 4)
    assert float(head.loss(right, [boxed(*boxes)])) < 1e-4
    assert float(head.loss(right, [boxed((4, 4, 20, 28), (36, 8, 60, 24))])) > 0.1
    assert float(head.loss(right, [NONE])) > 1


def test_masks_of_a_batch_are_those_of_its_images() -> None:
    torch.manual_seed(0)
    model = CoDetr(compact_config(TINY))
    maps = [torch.randn(3, 32, s, s) for s in (32, 16, 8, 4, 2)]
    both = mask_losses(model, maps, [FOUR, NONE, ONE])
    parts = [mask_losses(model, [m[n : n + 1] for m in maps], [target]) for n, target in ((0, FOUR), (2, ONE))]
    for whole, four, one in zip(both, *parts, strict=True):
        torch.testing.assert_close(whole, (4 * four + one) / 5)
    assert not any(part.any() for part in mask_losses(model, maps, [NONE] * 3))


def test_a_limit_draws_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = CoDetr(compact_config(TINY)), []
    forward = model.mask_head.forward
    monkeypatch.setattr(model.mask_head, "forward", lambda x, *rest: seen.append(rest[1]) or forward(x, *rest))
    maps = [torch.randn(2, 32, s, s) for s in (32, 16, 8, 4, 2)]
    for seed in range(12):
        torch.manual_seed(seed)
        mask_losses(model, maps, [FOUR, ONE], limit=2)
    assert all(len(regions) == 2 for regions in seen)
    assert len({tuple(row) for regions in seen for row in regions.tolist()}) == 5


def test_regions_are_shifted_as_far_as_said() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([10.0, 20.0, 30.0, 60.0]).repeat(500, 1)
    assert torch.equal(shifted(boxes, 0.0), boxes)
    moved = box_convert(shifted(boxes, 0.2), "xyxy", "cxcywh") - torch.tensor([20.0, 40.0, 20.0, 40.0])
    apart = moved.abs() / torch.tensor([20.0, 40.0, 20.0, 40.0])
    assert apart[:, :2].max() <= 0.2 + 1e-5 and apart[:, 2:].max() <= 0.3 + 1e-5 and (apart.amax(0) > 0.19).all()


def test_iou_of_masks() -> None:
    a, b = torch.zeros(2, 1, 4, 4, dtype=torch.bool), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    a[0, 0, :2], b[0, 0, 1:3] = True, True
    torch.testing.assert_close(mask_iou(a, b), torch.tensor([1 / 3, 0.0]))
