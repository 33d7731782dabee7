"""Draws: the same order wherever a run is resumed, shared among processes, and batches of as many prompts as asked."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskselect.scenes.groups import SceneGroups
from maskselect.training.data import GroupsData
from maskselect.training.draws import NumberedDraws, PromptBatches


def test_numbered_draws_resume_where_they_stopped() -> None:
    whole = list(NumberedDraws(7, seed=1, length=30))
    assert whole[12:] == list(NumberedDraws(7, seed=1, start=12, length=30))
    assert sorted(whole[:7]) == list(range(7)) and whole[:7] != whole[7:14]


def test_processes_share_the_draws() -> None:
    whole = list(NumberedDraws(7, seed=1, start=4, length=24))
    shares = [list(NumberedDraws(7, seed=1, start=4, length=24, rank=r, world=2)) for r in range(2)]
    assert shares[0] == whole[::2] and shares[1] == whole[1::2]


SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 40), st.integers(1, 6))
def test_batches_hold_as_many_prompts_as_asked_or_as_near_as_can_be(sizes: list[int], wanted: int, most: int) -> None:
    draws = NumberedDraws(len(sizes), seed=1, length=60)
    batches = list(PromptBatches(draws, sizes.__getitem__, wanted, most))
    drawn = list(draws)
    flat = [item for batch in batches for item in batch]
    assert flat == drawn[: len(flat)] and all(1 <= len(batch) <= most for batch in batches)
    place = 0
    for batch in batches:
        place += len(batch)
        asked = sum(sizes[item] for item in batch)
        with_next = asked + sizes[drawn[place]]
        assert len(batch) == most or abs(with_next - wanted) > wanted - asked
        assert len(batch) == 1 or abs(asked - wanted) <= abs(asked - sizes[batch[-1]] - wanted)


def test_batches_are_resumed_and_shared() -> None:
    sizes = [1, 5, 2, 9, 3]

    def batches(start: int = 0, rank: int = 0, world: int = 1) -> PromptBatches:
        return PromptBatches(NumberedDraws(5, seed=2, length=99), sizes.__getitem__, 7, 3, start, rank, world)

    whole = list(batches())
    assert list(batches(4)) == whole[4:] and batches(4).taken() == sum(map(len, whole[:4]))
    for rank in range(2):
        assert list(batches(6, rank, 2)) == whole[6 + rank :: 2]
        assert batches(6, rank, 2).taken() == sum(map(len, whole[rank:6:2]))


def test_images_with_endless_prompts_bring_those_that_are_asked() -> None:
    source = SceneGroups("train", 0, 5)
    data = GroupsData(source, source, batch_size=8, prompts_per_image=4, batch_prompts=12)
    batches = PromptBatches(NumberedDraws(5, seed=0), data._prompts_of, 12, 8)
    assert [len(batch) for batch in islice(batches, 4)] == [3, 3, 3, 3]
    with pytest.raises(ValueError, match="batch_prompts must be at least 1, got 0"):
        GroupsData(source, source, batch_prompts=0)
