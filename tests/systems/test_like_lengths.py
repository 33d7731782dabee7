"""Prompts run in groups of similar length; the groups change the time that takes and nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskselect.systems import scoring
from tests.systems.tiny import tiny_batch, tiny_llmseg, tiny_ras


@given(st.lists(st.integers(1, 90), min_size=1, max_size=120), st.integers(1, 40))
def test_groups_hold_every_row_once_shortest_first(lengths: list[int], fewest: int) -> None:
    groups = scoring.like_lengths(lengths, fewest)
    rows = [row for group in groups for row in group]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths)
    assert all(len(group) >= min(fewest, len(lengths)) for group in groups)


def test_long_rows_stand_apart() -> None:
    lengths = [10, 40] * 30
    groups = scoring.like_lengths(lengths)
    assert [{lengths[row] for row in group} for group in groups] == [{10}, {40}]


@pytest.mark.parametrize("system", [tiny_ras(), tiny_llmseg()], ids=["ras", "llmseg"])
def test_any_groups_give_the_same_losses_and_gradients(
    system: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.eval()
    found = []
    for fewest in (1000, 2, 1):
        monkeypatch.setattr(scoring, "like_lengths", lambda lengths, own=fewest: _groups(lengths, own))
        system.zero_grad()
        loss = system.loss(tiny_batch(system))["loss"]  # type: ignore[operator]
        loss.backward()
        gradients = [p.grad.clone() for p in system.parameters() if p.grad is not None]
        found.append([loss.detach(), *gradients])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)


def _groups(lengths: list[int], fewest: int) -> list[list[int]]:
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[start : start + fewest] for start in range(0, len(order), fewest)]
