"""Token rows: what stands where, who sees whom, and the errors when counts disagree."""

import pytest
import torch

from maskselect.tokens import sequence
from maskselect.tokens.sequence import PREFIX, Slot


def test_prefix_holds_image_then_announced_candidates() -> None:
    segment = sequence.prefix_segment([1, 7], image_tokens=2, order=[2, 0], pool_pre=True, after_ids=[9])
    T, M, P, C = int(Slot.TEXT), int(Slot.IMAGE), int(Slot.POOL_PRE), int(Slot.CANDIDATE)
    assert segment.kinds == [T, T, M, M, P, C, P, C, T]
    assert segment.values == [1, 7, 0, 1, 0, 2, 0, 0, 9]
    assert segment.positions == list(range(9))


def test_prompt_places_references_between_its_pieces() -> None:
    segment = sequence.prompt_segment([[5], [6, 6], []], ref_pre=True, closing_ids=[8], start=10, first_reference=3)
    T, P, R = int(Slot.TEXT), int(Slot.REF_PRE), int(Slot.REFERENCE)
    assert segment.kinds == [T, P, R, T, T, P, R, T]
    assert segment.values == [5, 0, 3, 6, 6, 0, 4, 8]
    assert segment.positions == list(range(10, 18))


def test_image_tokens_on_a_grid_share_one_time_and_text_goes_on_behind_the_longer_side() -> None:
    plain = sequence.prefix_segment([1], 0, [0], False, [9])
    wide = sequence.prefix_segment([1, 7], 6, [0], False, [9], [8], grid=(2, 3))
    assert wide.kinds == [1, 1, *[int(Slot.IMAGE)] * 6, 1, int(Slot.CANDIDATE), 1]
    rows = sequence.pack([(plain, []), (wide, [[sequence.prompt_segment([[5]], False, [], wide.end)]])])
    time, down, across = rows.positions[1].T.tolist()
    assert time == [0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 7, 8]
    assert down == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 7, 8]
    assert across == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 8]
    assert rows.positions[0, :3].tolist() == [[0] * 3, [1] * 3, [2] * 3]
    assert sequence.prefix_segment([1], 3, [], False, [], grid=(3, 1)).end == 4
    assert sequence.prefix_segment([1], 3, [], False, []).end == 4 == len(plain) + 1
    with pytest.raises(ValueError, match="5 image tokens cannot stand on a grid of 2 x 3"):
        sequence.prefix_segment([1], 5, [], False, [], grid=(2, 3))


@pytest.mark.parametrize(("mode", "positions"), [("causal", [4, 5, 6]), ("independent", [4] * 3), ("mutual", [4] * 3)])
def test_answer_positions(mode: sequence.SecondPass, positions: list[int]) -> None:
    assert sequence.answer_segment([2, 1, 0], 4, mode).positions == positions


def test_split_prompt_keeps_empty_ends() -> None:
    assert sequence.split_prompt("left of <mask-ref>") == ["left of", ""]
    assert sequence.split_prompt("<mask-ref><mask-ref>") == ["", "", ""]


def _rows(mode: sequence.SecondPass) -> sequence.PackedRows:
    prefix = sequence.prefix_segment([1], 0, [0, 1], False, [])
    prompts = [
        [sequence.prompt_segment([[5]], False, [], 3), sequence.answer_segment([0, 1], 4, mode)],
        [sequence.prompt_segment([[6, 6]], False, [], 3), sequence.answer_segment([0, 1], 5, mode)],
    ]
    return sequence.pack([(prefix, prompts), (sequence.prefix_segment([1], 0, [], False, []), [])])


@pytest.mark.parametrize("mode", ["causal", "independent", "mutual"])
def test_visibility_by_brute_force(mode: sequence.SecondPass) -> None:
    rows = _rows(mode)
    seen = sequence.visibility(rows, mode)[:, 0]
    for row in range(2):
        for q in range(rows.kinds.shape[1]):
            for k in range(rows.kinds.shape[1]):
                assert bool(seen[row, q, k]) == _may_see(rows, row, q, k, mode), (row, q, k)


def _may_see(rows: sequence.PackedRows, row: int, q: int, k: int, mode: str) -> bool:
    kinds, blocks = rows.kinds[row].tolist(), rows.blocks[row].tolist()
    if kinds[q] == Slot.PAD or kinds[k] == Slot.PAD:
        return q == k and kinds[q] == Slot.PAD
    if blocks[k] == PREFIX:
        return k <= q
    if blocks[k] != blocks[q]:
        return False
    if kinds[q] == Slot.ANSWER and kinds[k] == Slot.ANSWER and mode != "causal":
        return q == k or mode == "mutual"
    return k <= q


def test_every_query_sees_something() -> None:
    assert sequence.visibility(_rows("mutual"), "mutual").any(-1).all()


def test_scatter_puts_tokens_of_the_owner() -> None:
    rows = sequence.pack([(sequence.prefix_segment([1], 0, [1, 0], False, []), [])])
    tokens = torch.arange(8.0).view(2, 2, 2)
    out = sequence.scatter(torch.zeros(1, 3, 2), rows, Slot.CANDIDATE, tokens, torch.tensor([1]))
    assert out[0].tolist() == [[0, 0], [6, 7], [4, 5]]


def test_scatter_counts_before_it_writes() -> None:
    rows = sequence.pack([(sequence.prefix_segment([1], 0, [0, 1, 2], False, []), [])])
    with pytest.raises(ValueError, match="placeholders for 3 candidate tokens a row, but 2 were given"):
        sequence.scatter(torch.zeros(1, 4, 2), rows, Slot.CANDIDATE, torch.zeros(1, 2, 2), torch.tensor([0]))
