"""Mask losses against plain float64 arithmetic and torchvision."""

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from maskselect.losses import mask


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 3, 5, 7, generator=generator)
    return logits, (torch.rand(2, 3, 5, 7, generator=generator) > 0.6).float()


def test_focal_equals_torchvision(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    expected = sigmoid_focal_loss(*pair).flatten(-2).mean(-1)
    torch.testing.assert_close(mask.focal_loss(*pair), expected)


@pytest.mark.parametrize("alpha", [0.25, -1.0])
def test_focal_equals_float64(pair: tuple[torch.Tensor, torch.Tensor], alpha: float) -> None:
    logits, targets = (t.double() for t in pair)
    targets = targets * 0.75  # fractions, too
    p = 1 / (1 + (-logits).exp())
    entropy = -(targets * p.log() + (1 - targets) * (1 - p).log())
    loss = entropy * (1 - (p * targets + (1 - p) * (1 - targets))) ** 2
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    actual = mask.focal_loss(logits.float(), targets.float(), alpha=alpha)
    torch.testing.assert_close(actual.double(), loss.mean((-1, -2)), rtol=1e-4, atol=1e-6)


def test_dice_equals_float64(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = (t.double() for t in pair)
    p = 1 / (1 + (-logits).exp())
    expected = 1 - (2 * (p * targets).sum((-1, -2)) + 1) / (p.sum((-1, -2)) + targets.sum((-1, -2)) + 1)
    torch.testing.assert_close(mask.dice_loss(*pair).double(), expected, rtol=1e-5, atol=1e-6)


def test_weights_are_sams(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(mask.mask_loss(*pair), 20 * mask.focal_loss(*pair) + mask.dice_loss(*pair))


def test_perfect_and_empty_masks_cost_nothing() -> None:
    target = torch.zeros(2, 4, 4)
    target[0, :2] = 1
    assert mask.mask_loss((target - 0.5) * 60, target).max() < 1e-4


def test_true_iou() -> None:
    logits, target = -torch.ones(2, 2, 2), torch.zeros(2, 2, 2)
    logits[0, 0], target[0, :, 0] = 1, 1
    assert mask.mask_iou(logits, target).tolist() == [pytest.approx(1 / 3), 0.0]


def test_iou_regression_trains_the_prediction_only() -> None:
    predicted, true = torch.tensor([0.5], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    mask.iou_prediction_loss(predicted, true).backward()
    assert predicted.grad is not None
    assert predicted.grad.item() == pytest.approx(-1.0)
    assert true.grad is None
