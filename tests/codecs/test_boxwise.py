"""Box-wise descriptors: the vectors of the specification, and properties of the four geometries."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskselect.codecs.boxwise import TAGS, BoxwiseCodec
from maskselect.codecs.grammar import read_symbols
from maskselect.structures.codec import Codec, Grammar

GEOMETRIES = ("cell_inclusive", "half_open_cell", "corner_scaled", "raster")
BLOB = np.array([[c == "d" for c in row] for row in (".." * 3, "..dd..", ".dddd.", ".ddd..", "..d...", ".." * 3)])
HEAD = "<ref>dog</ref><box>[[1 1 4 4]]</box><seg>"


def codec(geometry: str = "cell_inclusive", bins: int = 6, **settings: object) -> BoxwiseCodec:
    return BoxwiseCodec(bins=bins, geometry=geometry, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, HEAD + "bg1fg2bg1\nfg4\nfg3bg1\nbg1fg1bg2</seg>"),
        ({"geometry": "raster"}, HEAD + "bg1fg2bg1fg7bg2fg1bg2</seg>"),
        ({"geometry": "half_open_cell"}, HEAD.replace("4 4", "5 5") + "bg1fg2bg1\nfg4\nfg3bg1\nbg1fg1bg2</seg>"),
        ({"bracketed": True}, HEAD + "<bg1><fg2><bg1>\n<fg4>\n<fg3><bg1>\n<bg1><fg1><bg2></seg>"),
    ],
)
def test_vector_of_a_blob(settings: dict[str, object], text: str) -> None:
    made = codec(**settings)  # type: ignore[arg-type]
    assert made.encode_grids(BLOB[None], ["dog"], [1]) == [text]
    for other in (text, f"It is here: {text}, you see."):
        found = made.decode_grids([other])[0]
        assert np.array_equal(found.cells, BLOB[None]) and found.names == ("dog",)
        assert found.repairs == 0 and found.failure is None


def test_vectors_of_no_and_of_all_cells() -> None:
    whole = np.ones((1, 6, 6), bool)
    assert codec().encode_grids(whole, ["dog"], [0, 1, 0]) == [
        "",
        "<ref>dog</ref><box>[[0 0 5 5]]</box><seg>fg6\nfg6\nfg6\nfg6\nfg6\nfg6</seg>",
        "",
    ]
    assert codec("raster").encode_grids(whole, ["dog"], [1])[0].endswith("<seg>fg36</seg>")
    found = codec().decode_grids(["", "There is no such thing."])
    assert all(one.cells.shape == (0, 6, 6) and one.failure is None for one in found)
    assert codec(no_group="failure").decode_grids(["nothing"])[0].failure == "the text has no group"


def test_vector_of_rows_of_64_cells() -> None:
    cells = np.zeros((2, 64, 64), bool)
    cells[0, 10] = cells[0, 11, 1:] = cells[1] = True
    texts = codec(bins=64).encode_grids(cells, ["bar", "bar"], [1, 1])
    assert texts[0] == "<ref>bar</ref><box>[[0 10 63 11]]</box><seg>fg63fg1\nbg1fg63</seg>"
    assert texts[1] == "<ref>bar</ref><box>[[0 0 63 63]]</box><seg>" + "\n".join(["fg63fg1"] * 64) + "</seg>"
    found = codec(bins=64).decode_grids(texts)
    assert all(np.array_equal(one.cells[0], own) and one.repairs == 0 for one, own in zip(found, cells, strict=True))


def test_vector_of_quantisation() -> None:
    masks = torch.zeros(1, 480, 640, dtype=torch.bool)
    masks[0, 50:200, 100:300] = True
    made = codec(bins=64)
    text = made.encode(masks, ["dog"])
    assert text == "<ref>dog</ref><box>[[10 7 29 26]]</box><seg>" + "\n".join(["fg20"] * 20) + "</seg>"
    found = made.decode(text, (480, 640)).masks[0]
    assert found[53:203, 100:300].all() and int(found.sum()) == 150 * 200
    text = codec("corner_scaled", 64).encode(masks, ["dog"])
    assert text == "<ref>dog</ref><box>[[10 7 30 26]]</box><seg>" + "\n".join(["fg20"] * 19) + "</seg>"


@pytest.mark.parametrize(
    ("body", "rows", "repairs"),
    [
        ("bg1fg2\nfg9\nfg4", [".##.", "####", "####", "...."], 3),  # short, long, missing
        ("fg4\nfg4\nfg4\nfg4\nfg4", ["####"] * 4, 1),
        ("fg4\nfg4 and\nfg4\nfg4", ["####"] * 4, 1),
        ("fg4bg4fg8", ["####", "....", "####", "####"], 1),  # as in raster
        ("fg4\nfg70\nfg4\nfg4", ["####"] * 4, 2),  # no brick of that length, and a long row
        ("fg0fg4\nfg4\nfg4\nfg4", ["####"] * 4, 1),
        ("", None, 3),
    ],
)
def test_bricks_are_repaired(body: str, rows: list[str] | None, repairs: int) -> None:
    found = codec(longest=63).decode_grids([f"{HEAD}{body}</seg>"])[0]
    if rows is None:
        assert found.failure and not len(found.cells)
        return
    assert found.failure is None and found.repairs == repairs
    assert ["".join(".#"[v] for v in row) for row in found.cells[0, 1:5, 1:5].tolist()] == rows


@pytest.mark.parametrize(
    ("text", "repairs", "corners"),
    [
        ("<ref>dog</ref><box>[[1 1 2 2]]</box>", 1, (1, 1, 3, 3)),  # a box alone is filled
        ("<ref>dog</ref><box>[[2 2 1 1]]</box><seg>fg2\nfg2</seg>", 2, (1, 1, 3, 3)),  # both pairs in wrong order
        ("<ref>dog</ref><box>[[4 5 99 99]]</box><seg>fg2</seg>", 2, (4, 5, 6, 6)),
        ("<ref>dog</ref><box>[1, 1, 2, 2]</box><seg>fg2\nfg2</seg>", 1, (1, 1, 3, 3)),
        ("<ref>dog</ref><box>[[1 1 2 2]]</box><seg>fg2\nfg2", 1, (1, 1, 3, 3)),
        ("<ref> dog</ref><box>[[1 1 2 2]]</box><seg>fg2\nfg2</seg>", 1, (1, 1, 3, 3)),
        ("<box>[[1 1 2 2]]</box><seg>fg2\nfg2</seg>", 1, (1, 1, 3, 3)),
        ("<ref>dog</ref><seg>fg2</seg><ref>dog</ref><box>[[1 1 2 2]]</box><seg>fg2\nfg2</seg>", 1, (1, 1, 3, 3)),
    ],
)
def test_groups_are_repaired(text: str, repairs: int, corners: tuple[int, int, int, int]) -> None:
    found = codec().decode_grids([text])[0]
    expected = np.zeros((1, 6, 6), bool)
    expected[0, corners[1] : corners[3], corners[0] : corners[2]] = True
    assert np.array_equal(found.cells, expected) and (found.failure, found.repairs) == (None, repairs)


def test_unknown_labels() -> None:
    text = "\n".join(codec().encode_grids(np.stack([BLOB, BLOB]), ["dog", "dgo"], [1, 1]))
    found = codec().decode_grids([text], [["dog"]])[0]
    assert found.failure == "unknown label 'dgo'" and found.unknown == ("dgo",) and not len(found.cells)
    found = codec(unknown="drop").decode_grids([text], [["dog"]])[0]
    assert found.failure is None and found.names == ("dog",) and found.unknown == ("dgo",) and found.repairs == 1
    assert codec().decode_grids([text], [["DOG", "dgo"]])[0].names == ("DOG", "dgo")


@st.composite
def instances(draw: st.DrawFn) -> tuple[BoxwiseCodec, np.ndarray, list[str]]:
    made = codec(
        draw(st.sampled_from(GEOMETRIES)),
        draw(st.integers(2, 8)),
        longest=draw(st.integers(1, 9)),
        bracketed=draw(st.booleans()),
        separator=draw(st.sampled_from(["", "\n", " ", "\n\n"])),
    )
    count = draw(st.integers(0, 3))
    cells = draw(hnp.arrays(np.bool_, (count, made.side, made.side)))
    for one in cells:
        one[0, 0] |= not one.any()
        if made.geometry == "half_open_cell":  # the last row and column have no coordinate
            one[-1] = one[:, -1] = False
            one[0, 0] |= not one.any()
    return made, cells, draw(st.lists(st.sampled_from(["dog", "café", "roi0", "12"]), min_size=count, max_size=count))


@settings(max_examples=200)
@given(instances())
def test_all_instances_are_read_back(case: tuple[BoxwiseCodec, np.ndarray, list[str]]) -> None:
    made, cells, labels = case
    text = made.encode_grids(cells, labels, [len(cells)])[0]
    for names in (None, [labels]):
        found = made.decode_grids([text], names)[0]
        assert np.array_equal(found.cells, cells) and found.names == tuple(labels)
        assert found.repairs == 0 and found.failure is None
    assert read_symbols(made.grammar(labels or ["dog"]), text) is not None
    pixels = made.decode(text, (made.side * 3, made.side * 2)).masks
    assert made.encode(pixels, labels) == text
    numbered = made.encode(pixels)
    assert read_symbols(made.grammar(None), numbered) is not None
    assert made.decode(numbered, (5, 5)).labels == tuple(f"roi{n}" for n in range(len(cells)))


@settings(max_examples=200)
@given(instances(), st.data())
def test_every_permitted_text_needs_no_repair(
    case: tuple[BoxwiseCodec, np.ndarray, list[str]], data: st.DataObject
) -> None:
    made, _, labels = case
    grammar = replace(made, most=2).grammar(labels or None)
    state, text = grammar.start, ""
    while True:
        if grammar.complete(state) and (not grammar.allowed(state).any() or data.draw(st.booleans())):
            break
        symbol = data.draw(st.sampled_from(np.flatnonzero(grammar.allowed(state)).tolist()))
        text += grammar.symbols[symbol]
        state = grammar.advance(state, symbol)
    found = made.decode_grids([text])[0]
    assert found.failure is None and found.repairs == 0 and len(found.cells) == text.count("<ref>")
    first = made.encode_grids(found.cells, found.names, [len(found.names)])[0]
    again = made.decode_grids([first])[0]
    assert np.array_equal(again.cells, found.cells)
    assert made.encode_grids(again.cells, again.names, [len(again.names)])[0] == first


PIECES = [
    *TAGS,
    "dog",
    "roi0",
    "[[",
    "]]",
    " ",
    "0",
    "1",
    "2",
    "9" * 30,
    "fg1",
    "bg1",
    "fg2",
    "bg2",
    "fg9",
    "fg",
    "<fg1>",
    "\n",
    "é",
    "\0",
]
PIECES += ["\ud800", "[[0 0 1 1]]", "<ref>dog</ref>", "<box>[[0 0 1 1]]</box>", "<seg>fg2\nfg2</seg>"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=30)


@settings(max_examples=400)
@given(TEXTS, st.sampled_from(GEOMETRIES), st.booleans())
def test_no_text_raises_and_what_is_read_is_canonical(text: str, geometry: str, known: bool) -> None:
    made = codec(geometry, 3)
    names = [["dog"]] if known else None
    found = made.decode_grids([text], names)[0]
    assert len(found.cells) == len(found.names) and (found.failure is None or not len(found.cells))
    assert found.cells.any((1, 2)).all()
    made.decode(text, (4, 5), ["dog"])
    if found.failure is None:
        first = made.encode_grids(found.cells, found.names, [len(found.cells)])[0]
        again = made.decode_grids([first])[0]
        assert again.repairs == 0 and made.encode_grids(again.cells, again.names, [len(again.cells)])[0] == first


def test_a_batch_is_what_its_texts_are_alone() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 300).tolist()
    cells = rng.random((sum(counts), 8, 8)) < 0.4
    cells[:, 3, 3] = True
    made = codec(bins=8)
    texts = made.encode_grids(cells, [f"a{n}" for n in range(len(cells))], counts)
    texts[7], texts[200] = "nothing", "<ref>dog</ref>"
    for one, text in zip(made.decode_grids(texts), texts, strict=True):
        alone = made.decode_grids([text])[0]
        assert np.array_equal(one.cells, alone.cells)
        assert (one.names, one.repairs, one.failure) == (alone.names, alone.repairs, alone.failure)


def test_what_has_no_coordinate_moves() -> None:
    cells = np.zeros((1, 6, 6), bool)
    cells[0, 2:4, 5] = True
    made = codec("half_open_cell")
    text = made.encode_grids(cells, ["dog"], [1])[0]
    assert text == "<ref>dog</ref><box>[[4 2 5 4]]</box><seg>fg1\nfg1</seg>"
    assert np.array_equal(made.decode_grids([text])[0].cells, np.roll(cells, -1, 2))


def test_tokens_and_settings() -> None:
    made = BoxwiseCodec()
    assert len(made.tokens) == 132 == len(set(made.tokens)) and made.tokens[:6] == TAGS and made.tokens[6] == "fg1"
    assert BoxwiseCodec(bricks=False).tokens == TAGS and "<bg63>" in BoxwiseCodec(bracketed=True).tokens
    assert isinstance(made, Codec) and isinstance(made.grammar(None), Grammar)
    for wrong in ({"bins": 1}, {"longest": 0}, {"separator": "and"}):
        with pytest.raises(ValueError, match="expected"):
            BoxwiseCodec(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no cell"):
        codec().encode_grids(np.zeros((1, 6, 6), bool), ["dog"], [1])
    with pytest.raises(ValueError, match="not allowed"):
        made.grammar(None).advance(made.grammar(None).start, 3)


def test_small_masks_are_kept() -> None:
    masks = torch.zeros(2, 100, 100, dtype=torch.bool)
    masks[0, 51, 51] = True
    for geometry in GEOMETRIES:
        found = codec(geometry).decode(codec(geometry).encode(masks, ["dot", "none"]), (100, 100))
        assert found.labels == ("dot",) and found.masks[0].any()
