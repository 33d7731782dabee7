"""Draws: the same order in a resumed run, shared among processes, and batches with a given number of prompts."""

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskselect.scenes.groups import SceneGroups
from maskselect.training.data import GroupsData
from maskselect.training.draws import NumberedDraws, PromptBatches

Item = TypeVar("Item")


def first(count: int, items: Iterable[Item]) -> list[Item]:
    return list(islice(items, count))


def test_numbered_draws_resume_where_they_stopped() -> None:
    whole = first(30, NumberedDraws(7, seed=1))
    assert whole[12:] == first(18, NumberedDraws(7, seed=1, start=12))
    assert sorted(whole[:7]) == list(range(7)) and whole[:7] != whole[7:14]


def test_processes_share_the_draws() -> None:
    whole = first(20, NumberedDraws(7, seed=1, start=4))
    shares = [first(10, NumberedDraws(7, seed=1, start=4, rank=r, world=2)) for r in range(2)]
    assert shares[0] == whole[::2] and shares[1] == whole[1::2]


SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 40), st.integers(1, 6))
def test_batches_are_as_near_to_the_number_of_prompts_as_possible(sizes: list[int], prompts: int, most: int) -> None:
    draws = NumberedDraws(len(sizes), seed=1)
    batches = first(10, PromptBatches(draws, sizes.__getitem__, prompts, most))
    drawn = first(61, draws)
    flat = [item for batch in batches for item in batch]
    assert flat == drawn[: len(flat)] and all(1 <= len(batch) <= most for batch in batches)
    place = 0
    for batch in batches:
        place += len(batch)
        total = sum(sizes[item] for item in batch)
        with_next = total + sizes[drawn[place]]
        assert len(batch) == most or abs(with_next - prompts) > prompts - total
        assert len(batch) == 1 or abs(total - prompts) <= abs(total - sizes[batch[-1]] - prompts)


def test_batches_are_resumed_and_shared() -> None:
    sizes = [1, 5, 2, 9, 3]

    def batches(start: int = 0, rank: int = 0, world: int = 1) -> PromptBatches:
        return PromptBatches(NumberedDraws(5, seed=2), sizes.__getitem__, 7, 3, start, rank, world)

    whole = first(30, batches())
    assert first(26, batches(4)) == whole[4:] and batches(4).taken() == sum(map(len, whole[:4]))
    for rank in range(2):
        assert first(12, batches(6, rank, 2)) == whole[6 + rank :: 2]
        assert batches(6, rank, 2).taken() == sum(map(len, whole[rank:6:2]))


def test_an_image_has_at_most_prompts_per_image_prompts() -> None:
    source = SceneGroups("train", 0, 5)
    data = GroupsData(source, source, batch_size=8, prompts_per_image=4, batch_prompts=12)
    batches = PromptBatches(NumberedDraws(5, seed=0), data._prompts_of, 12, 8)
    assert [len(batch) for batch in first(4, batches)] == [3, 3, 3, 3]
    with pytest.raises(ValueError, match="batch_prompts must be at least 1, got 0"):
        GroupsData(source, source, batch_prompts=0)
