"""The loss of mask selection by hand: binary cross entropy, positives count five times (RAS, section 3.3)."""

import math

import pytest
import torch

from maskselect.losses.selection import selection_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 9.0], [-0.5, 3.0, 9.0, 9.0]])
LABELS = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
VALID = torch.tensor([[True, True, True, False], [True, True, False, False]])


def by_hand(weight: float) -> float:
    rows = []
    for logits, labels, valid in zip(LOGITS.tolist(), LABELS.tolist(), VALID.tolist(), strict=True):
        terms = []
        for logit, label, counted in zip(logits, labels, valid, strict=True):
            probability = 1 / (1 + math.exp(-logit))
            if counted:
                terms.append(-weight * math.log(probability) if label else -math.log(1 - probability))
        rows.append(sum(terms) / len(terms))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_the_loss_by_hand(weight: float) -> None:
    assert float(selection_loss(LOGITS, LABELS, VALID, weight)) == pytest.approx(by_hand(weight), rel=1e-5)


def test_the_weight_of_the_paper_is_the_default() -> None:
    assert float(selection_loss(LOGITS, LABELS, VALID)) == pytest.approx(by_hand(5.0), rel=1e-5)


def test_a_prompt_without_candidates_counts_as_zero() -> None:
    both = selection_loss(LOGITS[:1].expand(2, -1), LABELS[:1].expand(2, -1), torch.stack([VALID[0], VALID[0] & False]))
    assert float(both) == pytest.approx(float(selection_loss(LOGITS[:1], LABELS[:1], VALID[:1])) / 2, rel=1e-6)
