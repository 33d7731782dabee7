"""LLM-Seg's losses against plain float64 sums, and IoP against pycocotools."""

import math

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch import Tensor

from maskselect.losses.overlap import alignment_loss, iop_loss
from maskselect.ops.overlap import pairwise_iop


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(v - max(values)) for v in values]
    return [p / sum(powers) for p in powers]


def plain_alignment(similarity: Tensor, iou: Tensor, counts: list[int], temperature: float, form: str) -> float:
    rows = []
    for found, wanted, count in zip(similarity.tolist(), iou.tolist(), counts, strict=True):
        p, g = (softmax([v / temperature for v in row[:count]]) for row in (found, wanted))
        a, b = (g, p) if form == "released" else (p, g)
        rows.append(sum(x * (math.log(x) - math.log(y)) for x, y in zip(a, b, strict=True)))
    return sum(rows) / len(rows)


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    counts = [7, 3, 1, 5]
    valid = torch.arange(7)[None] < torch.tensor(counts)[:, None]
    similarity = torch.rand(4, 7, generator=generator) * 2 - 1
    return similarity, torch.rand(4, 7, generator=generator) * valid, valid, counts


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_alignment_is_the_divergence_in_float64(form: str, temperature: float) -> None:
    for seed in range(5):
        similarity, iou, valid, counts = random_case(seed)
        expected = plain_alignment(similarity.double(), iou.double(), counts, temperature, form)
        found = alignment_loss(similarity, iou, valid, temperature, form)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_alignment_is_least_where_similarity_is_iou() -> None:
    similarity, iou, valid, _ = random_case(0)
    assert float(alignment_loss(iou, iou, valid)) == pytest.approx(0, abs=1e-6)
    assert float(alignment_loss(similarity, iou, valid)) > 0.1


def test_alignment_has_finite_gradients_on_padding() -> None:
    similarity, iou, valid, _ = random_case(1)
    similarity.requires_grad_()
    alignment_loss(similarity, iou, valid).backward()
    assert similarity.grad is not None
    assert bool(similarity.grad.isfinite().all())
    assert float(similarity.grad[~valid].abs().max()) == 0


def test_iop_loss_is_the_weighted_square_in_float64() -> None:
    for seed in range(5):
        predicted, iop, valid, counts = random_case(seed)
        rows = [
            sum((p - g) ** 2 / math.e ** (1 - g) for p, g in zip(found[:n], wanted[:n], strict=True)) / n
            for found, wanted, n in zip(predicted.double().tolist(), iop.double().tolist(), counts, strict=True)
        ]
        assert float(iop_loss(predicted, iop, valid)) == pytest.approx(sum(rows) / len(rows), rel=1e-5)


def test_pure_candidates_count_e_times_as_much() -> None:
    valid = torch.ones(1, 1, dtype=torch.bool)
    pure = iop_loss(torch.tensor([[0.5]]), torch.tensor([[1.0]]), valid)
    impure = iop_loss(torch.tensor([[0.5]]), torch.tensor([[0.0]]), valid)
    assert float(pure / impure) == pytest.approx(math.e, rel=1e-5)


def test_rows_without_candidates_count_nothing() -> None:
    none = torch.zeros(1, 3, dtype=torch.bool)
    assert float(iop_loss(torch.rand(1, 3), torch.zeros(1, 3), none)) == 0
    assert float(alignment_loss(torch.rand(1, 3), torch.zeros(1, 3), none)) == 0


def test_iop_is_cocos_crowd_iou() -> None:
    """With `iscrowd` pycocotools divides by the detection's area: that is IoP."""
    rng = np.random.default_rng(0)
    candidates, targets = (rng.random((n, 20, 30)) < share for n, share in ((6, 0.3), (4, 0.6)))
    codes = [[coco.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks] for masks in (candidates, targets)]
    expected = coco.iou(codes[0], codes[1], [1] * len(codes[1]))
    found = pairwise_iop(torch.from_numpy(candidates), torch.from_numpy(targets))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
