"""Training a compact Co-DETR: assignment, losses against a second writing, one step, one scene learned by heart."""

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.data.scenes.stream import SceneDataset
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.codetr.assignment import Targets, assign, set_loss
from maskselect.proposers.codetr.config import compact_config
from maskselect.proposers.codetr.frame import to_frame
from maskselect.proposers.codetr.objective import CoDetrObjective
from maskselect.proposers.codetr.proposer import CoDetrProposer
from maskselect.structures.protocols import Trainable

SMALL: dict[str, Any] = {
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 4,
    "window_size": 4,
    "global_blocks": [1],
    "patch_size": 8,
    "dim": 32,
    "ffn_dim": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 16,
    "iou_dim": 32,
    "long_side": 64,
    "short_side": 64,
}
SCENE = 1  # of the seed: four things on a square


def scenes(*numbers: int) -> dict[str, Any]:
    data = SceneDataset("train", seed=0, count=8, size=64)
    batch: dict[str, Any] = default_collate([data[number] for number in numbers])
    return batch


def objective(**changes: Any) -> CoDetrObjective:
    torch.manual_seed(0)
    return CoDetrObjective(SMALL, **({"flips": False} | changes)).train()


def overlap(a: list[float], b: list[float]) -> float:
    """Generalised IoU of two (centre x, centre y, width, height)."""
    ax, ay, bx, by = a[0] - a[2] / 2, a[1] - a[3] / 2, b[0] - b[2] / 2, b[1] - b[3] / 2
    right, bottom = (ax + a[2], bx + b[2]), (ay + a[3], by + b[3])
    shared = max(min(right) - max(ax, bx), 0) * max(min(bottom) - max(ay, by), 0)
    union = a[2] * a[3] + b[2] * b[3] - shared
    hull = (max(right) - min(ax, bx)) * (max(bottom) - min(ay, by))
    return shared / union - (hull - union) / hull


def pair_cost(logit: float, box: list[float], true: list[float]) -> float:
    p = 1 / (1 + math.exp(-logit))
    focal = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
    return 2 * focal + 5 * sum(abs(x - y) for x, y in zip(box, true, strict=True)) - 2 * overlap(box, true)


def some_targets(count: int, classes: int = 3, seed: int = 0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 4, generator=generator) * 0.3 + 0.2
    return Targets(boxes, torch.arange(count) % classes, torch.zeros(count, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize("seed", range(4))
def test_assignment_is_the_cheapest_of_all(seed: int) -> None:
    torch.manual_seed(seed)
    logits, boxes, targets = torch.randn(5, 3), torch.rand(5, 4) * 0.4 + 0.2, some_targets(3, seed=seed)
    queries, objects = assign(logits, boxes, targets)

    def cost(chosen: tuple[int, ...]) -> float:
        return sum(
            pair_cost(float(logits[q, targets.labels[g]]), boxes[q].tolist(), targets.boxes[g].tolist())
            for g, q in enumerate(chosen)
        )

    best = min(permutations(range(5), 3), key=cost)
    assert {int(g): int(q) for q, g in zip(queries, objects, strict=True)} == dict(enumerate(best))


def test_repeated_objects_get_several_queries() -> None:
    logits, boxes, targets = torch.randn(9, 3), torch.rand(9, 4) * 0.4 + 0.2, some_targets(3)
    queries, objects = assign(logits, boxes, targets, repeats=2)
    assert len(set(queries.tolist())) == 6 and objects.bincount().tolist() == [2, 2, 2]
    few, _ = assign(logits[:2], boxes[:2], targets)
    assert sorted(few.tolist()) == [0, 1]


def focal_loss(logits: Tensor, wanted: Tensor) -> float:
    total = 0.0
    for logit, one in zip(logits.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        total += 0.25 * (1 - p) ** 2 * -math.log(p) if one else 0.75 * p**2 * -math.log(1 - p)
    return total


def test_losses_equal_their_formulas() -> None:
    torch.manual_seed(1)
    logits, boxes = torch.randn(2, 6, 3), torch.rand(2, 6, 4) * 0.4 + 0.2
    targets = [some_targets(2, seed=4), some_targets(3, seed=5)]
    found, wanted, pairs = set_loss(logits, boxes, targets), torch.zeros(2, 6, 3), []
    for b, target in enumerate(targets):
        for q, g in zip(*assign(logits[b], boxes[b], target), strict=True):
            wanted[b, q, target.labels[g]] = 1
            pairs.append((boxes[b, q].tolist(), target.boxes[g].tolist()))
    apart = sum(abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True))
    assert float(found["class"]) == pytest.approx(2 * focal_loss(logits, wanted) / 5, abs=1e-5)
    assert float(found["l1"]) == pytest.approx(5 * apart / 5, abs=1e-5)
    assert float(found["giou"]) == pytest.approx(2 * sum(1 - overlap(a, b) for a, b in pairs) / 5, abs=1e-5)


def test_images_without_objects_have_a_loss() -> None:
    logits, boxes = torch.randn(2, 6, 3, requires_grad=True), torch.rand(2, 6, 4, requires_grad=True)
    found = set_loss(logits, boxes, [some_targets(0), some_targets(0)])
    assert not found["l1"].any() and not found["giou"].any() and found["class"] > 0
    batch = scenes(0)
    batch["index"] = torch.zeros_like(batch["index"])
    parts = objective().loss(batch)
    assert not parts["mask"].any() and not parts["judge"].any()
    parts["loss"].backward()


def test_canvases_are_those_of_inference() -> None:
    task = objective(smallest=1)
    batch = scenes(0, 1)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    batch["image"][1] = 0
    batch["image"][1, :, 8:56] = torch.from_numpy(picture).permute(2, 0, 1)
    batch["size"][1] = torch.tensor([48, 64])
    batch["index"][1] = 0
    batch["index"][1, 18:30, 5:25] = 1
    batch["index"][1, 40, 60] = 4
    pixels, padding, targets = task.prepare(batch)
    for number, image in enumerate((batch["image"][0].permute(1, 2, 0).numpy(), picture)):
        frame = to_frame(image, task.model.config)
        height, width = frame.pixels.shape[-2:]
        torch.testing.assert_close(pixels[number, :, :height, :width], frame.pixels[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(padding[number, :height, :width], frame.padding[0])
    assert padding[1, 48:].all() and not pixels[1, :, 48:].any()
    assert len(targets[1]) == 2 and targets[1].masks[0, 10:22, 5:25].all() and int(targets[1].masks[0].sum()) == 240
    torch.testing.assert_close(targets[1].boxes[0], torch.tensor([15 / 64, 16 / 48, 20 / 64, 12 / 48]))
    task.smallest = 16
    assert len(task.prepare(batch)[2][1]) == 1


def test_flips_move_pictures_and_objects_together() -> None:
    batch, task = scenes(SCENE), objective(smallest=1)
    pixels, _, targets = task.prepare(batch)
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        flipped, _, moved = task.prepare(batch, flips=True)
        axes = next(a for a in ((), (-1,), (-2,), (-1, -2)) if torch.allclose(flipped, pixels.flip(a), atol=1e-5))
        seen.add(axes)
        assert torch.equal(moved[0].masks, targets[0].masks.flip(axes))
    assert len(seen) == 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_step_reaches_every_weight(precision: str) -> None:
    task = objective(precision=precision)
    assert isinstance(task, Trainable)
    # What stands before a weight of zero is not reached by the first step: box branches, offsets of attention.
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    parts = task.loss(scenes(0, SCENE))
    assert set(parts) == {"loss", "class", "l1", "giou", "mask", "judge", "denoising", "auxiliary", "pixels"}
    total = sum(value for name, value in parts.items() if name != "loss") + parts["mask"]  # masks weigh twice
    torch.testing.assert_close(parts["loss"], total)
    optimizer = torch.optim.SGD(task.parameters(), 1e-2)
    parts["loss"].backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    optimizer.step()
    still = [name for name, p in task.named_parameters() if torch.equal(p, before[name])]
    assert not still


def test_helpers_can_be_left_out_and_never_ship() -> None:
    plain = objective(denoising_weight=0, auxiliary_weight=0, pixel_weight=0)
    assert set(plain.loss(scenes(0))) == {"loss", "class", "l1", "giou", "mask", "judge"}
    helped = objective()
    assert len(list(helped.parameters())) > len(list(plain.parameters()))
    assert helped.learned_state().keys() == plain.learned_state().keys() == plain.model.state_dict().keys()
    assert set(helped.eval().validate(scenes(0))) == {"loss", "class", "l1", "giou", "mask", "judge"}


def test_the_backbone_is_trained_first_and_alone() -> None:
    task, batch = objective(warmup_steps=2), scenes(0)
    assert "mask" in task.eval().validate(batch)  # which is no step
    task.train()
    for step in range(3):
        parts = task.loss(batch)
        assert (set(parts) == {"loss", "pixels"}) == (step < 2)
        task.zero_grad()
        parts["loss"].backward()
        reached = {name.split(".")[1] for name, p in task.model.named_parameters("model") if p.grad is not None}
        assert (reached == {"backbone"}) == (step < 2)
    # A resumed run goes on where it was.
    again = objective(warmup_steps=2)
    again.load_state_dict(task.state_dict())
    assert "mask" in again.loss(batch)


def test_validation_leaves_no_gradient_and_is_repeatable() -> None:
    task, batch = objective(flips=True).eval(), scenes(0)
    first, second = task.validate(batch), task.validate(batch)
    assert not first["loss"].requires_grad and torch.equal(first["loss"], second["loss"])


def trained(steps: int) -> tuple[CoDetrObjective, list[float]]:
    """A model, and its losses while it learns one scene. Those of helpers, some of chance, are not told."""
    task, batch, losses = objective(), scenes(SCENE), []
    optimizer = torch.optim.AdamW(task.parameters(), 1e-3)
    for _ in range(steps):
        parts = task.loss(batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        losses.append(sum(float(parts[name].detach()) for name in ("class", "l1", "giou", "mask", "judge")))
    return task, losses


def test_a_few_steps_halve_the_loss() -> None:
    _, losses = trained(24)
    assert min(losses[-4:]) < 0.5 * losses[0]


@pytest.mark.slow
def test_one_scene_is_learned_by_heart_and_proposed(tmp_path: Path) -> None:
    task, losses = trained(90)
    assert losses[-1] < 0.25 * losses[0]
    path = tmp_path / "codetr.safetensors"
    card = {"system": task.system, "config": {"class_path": "-", "init_args": {"model": SMALL}}}
    write_checkpoint(path, task.learned_state(), card)
    batch = scenes(SCENE)
    image, index = batch["image"][0].permute(1, 2, 0).numpy(), batch["index"][0]
    true = torch.stack([index == k for k in index.unique() if k > 0])
    found = CoDetrProposer(path, "own", score_threshold=0.05).propose(image)
    best = pairwise_iou(true, found.masks).max(1).values
    assert len(true) == 4 and float(best.mean()) > 0.75 and float(best.min()) > 0.5
    # What is proposed first is among the things.
    assert float(pairwise_iou(found.masks[:1], true).max()) > 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": {"classes": 3}}, "classes 1"),
        ({"model": {"square_canvas": True}}, "square canvas"),
        ({"precision": "fp8"}, "fp32 or bf16"),
    ],
)
def test_what_cannot_be_trained_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoDetrObjective(**arguments)


def test_sizes_that_do_not_exist_are_refused() -> None:
    assert compact_config({"depth": 6}).depth == 6
    with pytest.raises(TypeError, match="size"):
        compact_config({"size": 6})
