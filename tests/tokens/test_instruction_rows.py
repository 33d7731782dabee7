"""Rows of InstructSeg: the published order, ours with a shared prefix, and what they embed to."""

from dataclasses import replace
from itertools import groupby

import pytest
import torch
from torch import Tensor

from maskselect.lmm.llava import Llava
from maskselect.systems.reading import Reader, Tokens
from maskselect.tokens import sequence
from maskselect.tokens.instruction_rows import SEG, InstructionRows, RowLayout, Wording, own_wording
from maskselect.tokens.mask_tokenizer import MaskTokenizer
from maskselect.tokens.sequence import PackedRows, Segment, Slot
from tests.systems.tiny import SIZES

WORDING = Wording("see <temporal>\n<image>\n, mark it:\n<refer>", "\nsure, it is [SEG]<seg>")
"""Of the published form."""
LAYOUTS: tuple[RowLayout, ...] = ("published", "shared_image", "image_after_prompt")


@pytest.fixture(scope="module")
def reader() -> Reader:
    torch.manual_seed(0)
    lmm = Llava(sizes=SIZES).eval()
    return Reader(lmm, MaskTokenizer(6, lmm.width)).eval()


def runs(segments: list[Segment]) -> list[tuple[str, int]]:
    kinds = [kind for segment in segments for kind in segment.kinds]
    return [(Slot(kind).name, len(list(same))) for kind, same in groupby(kinds)]


def test_the_published_row_has_all_parts_in_order(reader: Reader) -> None:
    lmm = reader.lmm
    rows = InstructionRows(lmm, WORDING, "published", masks=4)
    (row,) = rows.prompt("the red mug", 0, image_tokens=9, temporal=8)
    text, line = lmm.token_ids("the red mug"), lmm.token_ids("\n")
    lead, ask = [*lmm.chat(False).begin, *lmm.token_ids(" see ")], lmm.token_ids("\n, mark it:\n")
    closing, reply = lmm.chat(False).closing, lmm.token_ids(" \nsure, it is ")
    assert rows.prefix(9) is None and rows.seg_id == lmm.add_token(SEG)
    assert runs([row]) == [
        ("TEXT", len(lead)), ("TEMPORAL", 8), ("TEXT", len(line)), ("IMAGE", 9), ("TEXT", len(ask)),
        ("INSTRUCTION", len(text) + 1), ("TEXT", len(closing)), ("REPLY", len(reply) + 1), ("MASK_QUERY", 4),
        ("REPLY", 1),
    ]  # fmt: skip
    want = [*lead, *range(8), *line, *range(9), *ask, *text, rows.seg_id, *closing, *reply, rows.seg_id, *range(4)]
    assert row.values == [*want, lmm.tokenizer.eos_token_id]
    assert row.positions == list(range(len(row)))


def test_prefixes_hold_what_all_prompts_share(reader: Reader) -> None:
    lmm = reader.lmm
    for layout in LAYOUTS[1:]:
        rows = InstructionRows(lmm, own_wording(layout, "clip", "referring"), layout, 4, ref_pre=True)
        prefix = rows.prefix(9)
        assert prefix is not None
        prompt = rows.prompt("left of <mask-ref>", prefix.end, 9, 6, first_temporal=6, first_reference=1)
        names = [name for name, _ in runs(prompt)]
        assert ("IMAGE" in dict(runs([prefix]))) is (layout == "shared_image") is ("IMAGE" not in names)
        assert {"TEMPORAL", "INSTRUCTION", "REF_PRE", "REFERENCE", "MASK_QUERY"} <= set(names)
        values = {kind: [] for kind in Slot}
        for segment in prompt:
            for kind, value in zip(segment.kinds, segment.values, strict=True):
                values[Slot(kind)].append(value)
        assert values[Slot.TEMPORAL] == list(range(6, 12)) and values[Slot.REFERENCE] == [1]
        positions = [p for segment in prompt for p in segment.positions]
        image = len(values[Slot.IMAGE])
        assert positions[0] == prefix.end and len(set(positions)) == len(positions) - max(image - 1, 0)
        assert (names.index("IMAGE") > names.index("INSTRUCTION")) if image else True


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("request_kind", ["referring", "reasoning", "plain"])
def test_our_wordings_fit_every_layout(reader: Reader, layout: RowLayout, request_kind: str) -> None:
    lengths = []
    for visual in ("image", "clip"):
        wording = own_wording(layout, visual, request_kind)  # type: ignore[arg-type]
        rows = InstructionRows(reader.lmm, wording, layout, 2)
        prefix = rows.prefix(3)
        segments = rows.prompt("a mug", prefix.end if prefix else 0, 3, 0)
        assert sum(kind == Slot.MASK_QUERY for s in segments for kind in s.kinds) == 2
        lengths.append(sum(map(len, segments)) + len(prefix or ()))
    plain = own_wording(layout, "image", "plain")
    bare = InstructionRows(reader.lmm, plain, layout, 2)
    shortest = len(bare.prefix(3) or ()) + sum(map(len, bare.prompt("a mug", 0, 3, 0)))
    assert all(length == shortest if request_kind == "plain" else length > shortest for length in lengths)


def tokens(reader: Reader) -> Tokens:
    torch.manual_seed(1)
    width = reader.lmm.width
    none = torch.zeros(1, 0, width)
    return Tokens(
        none, none[..., 0].bool(), torch.randn(1, 3, width), torch.randn(1, 1, width), None,
        torch.randn(1, 10, width), torch.randn(2, width),
    )  # fmt: skip


PROMPTS = ("the mug", "all red things near <mask-ref>")


def packed(rows: InstructionRows, separate: bool = False) -> PackedRows:
    """Both prompts with five perceiver tokens each, in one row or in two."""
    prefix = rows.prefix(3)
    start = prefix.end if prefix else 0
    parts = [rows.prompt(text, start, 3, 5, first_temporal=5 * number) for number, text in enumerate(PROMPTS)]
    if prefix is None:
        return sequence.pack([(part[0], []) for part in parts])
    return sequence.pack([(prefix, [part]) for part in parts] if separate else [(prefix, parts)])


def run(reader: Reader, rows: PackedRows) -> Tensor:
    owners = torch.zeros(len(rows.kinds), dtype=torch.int64)
    embeddings = reader.embed(rows, tokens(reader), owners)
    return reader.lmm.hidden(embeddings, sequence.visibility(rows, "causal"), rows.positions)


@torch.no_grad()
def test_every_kind_is_embedded_from_its_own_tokens(reader: Reader) -> None:
    rows = packed(InstructionRows(reader.lmm, WORDING, "published", 2))
    given = tokens(reader)
    out = reader.embed(rows, given, torch.zeros(2, dtype=torch.int64))
    for slot, source in (
        (Slot.TEMPORAL, given.temporal),
        (Slot.IMAGE, given.images),
        (Slot.REFERENCE, given.references),
    ):
        at = rows.kinds == slot
        assert source is not None and at.any()
        torch.testing.assert_close(out[at], source[0, rows.values[at]])
    queries = out[rows.kinds == Slot.MASK_QUERY].unflatten(0, (2, 2))
    torch.testing.assert_close(queries, given.mask_queries.expand(2, -1, -1))  # type: ignore[union-attr]
    for slot in sequence.TEXT_SLOTS:
        at = rows.kinds == slot
        torch.testing.assert_close(out[at], reader.lmm.embed(rows.values[at]))
    with pytest.raises(ValueError, match="placeholders for 10 temporal tokens a row, but 0 were given"):
        reader.embed(rows, replace(given, temporal=None), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="placeholders for 2 mask_query tokens a row, but 0 were given"):
        reader.embed(rows, replace(given, mask_queries=None), torch.zeros(2, dtype=torch.int64))


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompts_of_one_row_give_what_single_rows_give(reader: Reader, layout: RowLayout) -> None:
    rows = InstructionRows(reader.lmm, own_wording(layout, "image", "referring"), layout, 2)
    together, apart = packed(rows), packed(rows, separate=True)
    for chosen in (lambda r: r.kinds == Slot.MASK_QUERY, lambda r: sequence.is_instruction(r.kinds)):
        found, valid = sequence.gather(run(reader, together), together, chosen(together))
        want, same = sequence.gather(run(reader, apart), apart, chosen(apart))
        assert valid.equal(same) and len(found) == 2
        torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_published_row_is_causal(reader: Reader) -> None:
    rows = packed(InstructionRows(reader.lmm, WORDING, "published", 2))
    embeddings = reader.embed(rows, tokens(reader), torch.zeros(2, dtype=torch.int64))
    plain, real = reader.lmm.hidden(embeddings), rows.kinds != Slot.PAD
    torch.testing.assert_close(run(reader, rows)[real], plain[real], atol=1e-5, rtol=1e-4)


def test_gather_pads_each_prompt_on_its_own(reader: Reader) -> None:
    rows = packed(InstructionRows(reader.lmm, own_wording("shared_image", "image", "plain"), "shared_image", 2))
    states = torch.arange(float(rows.kinds.numel())).view(*rows.kinds.shape, 1)
    found, valid = sequence.gather(states, rows, sequence.is_instruction(rows.kinds))
    lengths = [len(reader.lmm.token_ids(text)) + 1 for text in ("the mug", "all red things near")]
    lengths[1] += 1  # its reference
    assert valid.sum(1).tolist() == lengths and found.shape == (2, max(lengths), 1)
    assert not found[~valid].any()
    assert found[0, 0] < found[0, 1] < found[1, 0]
    ids = rows.values[0, found[..., 0].long()]
    assert ids[0, lengths[0] - 1] == ids[1, lengths[1] - 1] == reader.lmm.add_token(SEG)


def test_what_does_not_fit_is_refused(reader: Reader) -> None:
    lmm = reader.lmm
    with pytest.raises(ValueError, match=r"question '<image> <refer>' has 0 times <temporal>; expected it once"):
        Wording("<image> <refer>", "[SEG]<seg>")
    with pytest.raises(ValueError, match=r"answer 'x' has 0 times <seg>; expected it once"):
        Wording("<temporal><image><refer>", "x")
    with pytest.raises(ValueError, match="layout 'shared_image' reads the image first"):
        InstructionRows(lmm, WORDING, "shared_image", 2)
    with pytest.raises(ValueError, match="layout 'image_after_prompt' reads the image after the prompt"):
        InstructionRows(lmm, WORDING, "image_after_prompt", 2)
    rows = InstructionRows(lmm, WORDING, "published", 2)
    with pytest.raises(ValueError, match=r"prompt makes a row of .* positions, but the language model's context has"):
        rows.prompt("mug " * lmm.max_positions, 0, 3, 0)
