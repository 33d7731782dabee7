"""Image-wise descriptors: the vectors of the specification, and properties of both decoders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskselect.codecs import runs
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.codecs.grammar import read_symbols
from maskselect.structures.codec import Codec, Grammar

LAYOUTS = ("full", "image", "row")
BLOB = "......|..dd..|.dddd.|.ddd..|..d...|......"
NAMES = ("dog", "brown dog", "café", "left one | on top", "a*", "*3 *2", "x" * 9 + " end", "y" * 9 + " end")


def grid(rows: str) -> np.ndarray:
    """Rows of `.` and letters to numbers; letters are numbered in the order of `#dcs`."""
    return np.array([[".#dcs".index(c) and max(1, ".#dcs".index(c) - 1) for c in row] for row in rows.split("|")])


def marks(cells: np.ndarray) -> str:
    return "|".join("".join(".#"[min(v, 1)] for v in row) for row in cells.tolist())


def body(text: str) -> str:
    return text.removeprefix("<seg>").removesuffix("</seg>")


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, int], np.ndarray, list[str]]:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    labels = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    cells = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, len(labels))))
    return shape, cells, labels


def codec(layout: str, side: int | tuple[int, int] = 6, **settings: object) -> DescriptorCodec:
    return DescriptorCodec(grid=side, layout=layout, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (
            "full",
            "others| others| others| others| others| others| others| others| dog| dog| others| others| others| dog| "
            "dog| dog| dog| others| others| dog| dog| dog| others| others| others| others| dog| others| others| "
            "others| others| others| others| others| others| others\n",
        ),
        ("image", "others *8| dog *2| others *3| dog *4| others *2| dog *3| others *4| dog *1| others *9\n"),
        (
            "row",
            "others *6\n others *2| dog *2| others *2\n others *1| dog *4| others *1\n others *1| dog *3| others *2\n"
            " others *2| dog *1| others *3\n others *6\n",
        ),
    ],
)
def test_vector_of_a_blob(layout: str, text: str) -> None:
    cells = grid(BLOB)
    assert body(codec(layout).encode_grids(cells[None], [["dog"]])[0]) == text
    for decoder in ("robust", "compatible"):
        found = codec(layout, decoder=decoder).decode_grids([f"Sure: <seg>{text}</seg>."])[0]
        assert np.array_equal(found.cells, cells) and found.names == ("dog",)
        assert found.repairs == 0 and found.failure is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_of_no_and_of_all_cells(layout: str) -> None:
    made = codec(layout)
    empty, whole = made.encode_grids(np.stack([np.zeros((6, 6), int), np.ones((6, 6), int)]), [["dog"]] * 2)
    items = {"full": lambda word: "| ".join([word] * 36), "image": lambda word: f"{word} *36"}
    items["row"] = lambda word: "\n ".join([f"{word} *6"] * 6)
    assert body(empty) == items[layout]("others") + "\n" and body(whole) == items[layout]("dog") + "\n"
    found = made.decode_grids([empty, whole])
    assert not found[0].cells.any() and found[0].failure is None and found[1].cells.all()
    # The released decoder takes the first label as background where `others` is missing.
    released = codec(layout, decoder="compatible").decode_grids([empty, whole])
    assert not released[0].cells.any() and not released[1].cells.any() and released[1].failure is None
    known = codec(layout, decoder="compatible").decode_grids([whole], [["dog"]])[0]
    assert known.cells.all()


@pytest.mark.parametrize(
    ("text", "compatible", "robust"),
    [
        ("others *6\n dog *6\n", "......" + "|######" * 5, "......|######" + "|......" * 4),
        (
            "others *6\n others *7\n dog *6\n others *6\n others *6\n others *6\n",
            "......|......|.#####|#.....|......|......",
            "......|......|######|......|......|......",
        ),
        ("others *6\n others *2| dog *2| others *2\n others *1| dog *4| others", None,
         "......|..##..|.####.|......|......|......"),
        ("others *6\nothers *2| dog *2| others *2\nothers *6\nothers *6\nothers *6\nothers *6\n", None,
         "......|..##..|......|......|......|......"),
        ("others *8| dog *2| others *3| dog *4| others *2| dog *3| others *4| dog *1| others *9\n",
         marks(grid(BLOB)), marks(grid(BLOB))),
        ("sky *6\n sky *6\n sky *2| dog *2| sky *2\n sky *6\n sky *6\n sky *6\n",
         "......|......|..##..|......|......|......", "######|######|######|######|######|######"),
    ],
)  # fmt: skip
def test_vectors_of_malformed_texts(text: str, compatible: str | None, robust: str) -> None:
    released = codec("row", decoder="compatible").decode_grids([f"<seg>{text}</seg>"])[0]
    assert marks(released.cells) == (compatible or "|".join(["......"] * 6))
    assert (released.failure is None) == (compatible is not None) and released.repairs == 0
    ours = codec("row").decode_grids([f"<seg>{text}</seg>"])[0]
    assert marks(ours.cells) == robust and ours.failure is None


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        ("<seg>others *2\n dog *2\n</seg>", 0),
        ("<seg>others *2\ndog *2</seg>", 0),  # white space alone is no repair
        ("<seg>others *2\n dog *2\n", 1),  # not closed
        ("<seg>others *2\n dog *3\n</seg>", 1),  # a long row
        ("<seg>others *1\n dog *2\n</seg>", 1),  # a short row
        ("<seg>others *2\n</seg>", 1),  # a missing row
        ("<seg>others *2\n dog *2\n dog *2\n dog *2\n</seg>", 2),  # two rows too many
        ("<seg>others *2\n dog *2| dog\n</seg>", 1),  # an item without a count
        ("<seg>others *2\n dog *2| dog *0\n</seg>", 1),
        ("<seg>others *2| dog *2\n</seg>", 1),  # the other layout
        ("<seg>OTHERS *2\n Dog  *2\n</seg>", 1),  # a label in another spelling
    ],
)
def test_repairs_are_counted(text: str, repairs: int) -> None:
    found = codec("row", 2).decode_grids([text], [["dog"]])[0]
    assert found.failure is None and found.repairs == repairs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_unknown_word_is_never_background_in_silence(layout: str) -> None:
    texts = codec(layout, 2).encode_grids(np.array([[[0, 1], [1, 2]]]), [["dog", "dgo"]])
    found = codec(layout, 2).decode_grids(texts, [["dog"]])[0]
    assert found.failure == "unknown word 'dgo'" and found.unknown == ("dgo",) and not found.cells.any()
    found = codec(layout, 2, unknown="others").decode_grids(texts, [["dog"]])[0]
    assert found.failure is None and found.unknown == ("dgo",) and found.repairs == 1
    assert found.cells.tolist() == [[0, 1], [1, 0]]
    found = codec(layout, 2, decoder="compatible").decode_grids(texts, [["dog"]])[0]
    assert found.failure is None and found.cells.tolist() == [[0, 1], [1, 0]] and found.unknown == ("dgo",)


def test_failures_are_values() -> None:
    for decoder in ("robust", "compatible"):
        made = codec("row", decoder=decoder)
        for text in ("", "others *6", "<seg></seg>", "<seg>| |</seg>"):
            found = made.decode(text, (5, 7))
            assert found.failure and found.masks.shape == (0, 5, 7) and found.labels == ()
    assert isinstance(made, Codec) and isinstance(made.grammar(["dog"]), Grammar)


@settings(max_examples=150)
@given(grids(), st.sampled_from(LAYOUTS))
def test_every_grid_is_read_back(case: tuple[tuple[int, int], np.ndarray, list[str]], layout: str) -> None:
    shape, cells, labels = case
    made = codec(layout, shape)
    text = made.encode_grids(cells[None], [labels])[0]
    found = made.decode_grids([text], [labels])[0]
    assert np.array_equal(found.cells, cells) and found.repairs == 0 and found.failure is None
    loose = made.decode_grids([text])[0]
    assert made.encode_grids(loose.cells[None], [loose.names])[0] == text and loose.repairs == 0
    assert read_symbols(made.grammar(labels), text) is not None
    if (cells == 0).any():
        released = codec(layout, shape, decoder="compatible").decode_grids([text])[0]
        assert made.encode_grids(released.cells[None], [released.names])[0] == text


@settings(max_examples=150)
@given(grids(), st.sampled_from(LAYOUTS), st.data())
def test_every_permitted_text_is_canonical(
    case: tuple[tuple[int, int], np.ndarray, list[str]], layout: str, data: st.DataObject
) -> None:
    shape, _, labels = case
    made = codec(layout, shape)
    grammar = made.grammar(labels)
    state, text = grammar.start, ""
    while not grammar.complete(state):
        symbol = data.draw(st.sampled_from(np.flatnonzero(grammar.allowed(state)).tolist()))
        text += grammar.symbols[symbol]
        state = grammar.advance(state, symbol)
    found = made.decode_grids([text], [labels])[0]
    assert found.failure is None and found.repairs == 0
    assert made.encode_grids(found.cells[None], [labels])[0] == text


PIECES = ["<seg>", "</seg>", "others", "dog", "brown dog", " *", "*", "0", "1", "2", "12", "9" * 30, "| ", "|"]
PIECES += ["\n", "\n ", " ", "é", "\0", "\ud800"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=30)


@settings(max_examples=400)
@given(TEXTS, st.sampled_from(LAYOUTS), st.booleans(), st.booleans())
def test_no_text_raises_and_what_is_read_is_canonical(text: str, layout: str, closed: bool, opened: bool) -> None:
    text = "<seg>" + text if opened else text
    labels = ["dog", "brown dog"] if closed else None
    for decoder in ("robust", "compatible"):
        made = codec(layout, (2, 3), decoder=decoder)
        found = made.decode_grids([text, text], None if labels is None else [labels] * 2)[1]
        assert found.cells.shape == (2, 3) and (found.failure is None or not found.cells.any())
        assert not (found.unknown and decoder == "robust" and found.failure is None)
        made.decode(text, (4, 5), labels)
        if found.failure is None and decoder == "robust":
            first = made.encode_grids(found.cells[None], [found.names])[0]
            again = made.decode_grids([first], [found.names])[0]
            assert again.repairs == 0 and made.encode_grids(again.cells[None], [found.names])[0] == first


@settings(max_examples=200)
@given(st.lists(st.lists(st.sampled_from([*NAMES, "others", "brothers", "o", "aa", "", "a|b", "x  "]), max_size=2)
                .flatmap(lambda words: st.lists(st.sampled_from(words or [""]), max_size=14)),
                min_size=1, max_size=4),
       st.sampled_from(["| ", "| ", "| ", "|", " | ", "|x"]))  # fmt: skip
def test_two_words_are_read_as_any_number_of_words(words: list[list[str]], separator: str) -> None:
    """The fast path for texts of two words gives what the general one gives, on well-formed and other texts."""
    bodies = [separator.join(own).encode() for own in words]
    found = runs.read_runs(bodies, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_alternating_runs", lambda bodies: None)
        expected = runs.read_runs(bodies, False)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        for name in ("lengths", "rows", "words", "bounds", "names", "name_bounds"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_the_fast_path_reads_most_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label may share letters with `others`; the general path is not needed."""
    cells = np.array([[[0, 1, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]]])
    names = [["the person on the horse's right"], ["dog"], ["dog"], ["shore"]]
    texts = codec("full", (2, 3)).encode_grids(cells, names)
    monkeypatch.setattr(runs, "_fingerprints", None)  # of the general path
    found = codec("full", (2, 3)).decode_grids(texts, names)
    assert np.array_equal(np.stack([one.cells for one in found]), cells)


@pytest.mark.parametrize("text", ["<seg>\n</seg>", "<seg>aa\n</seg>", "<seg>|\n</seg>", "<seg>aa|xaa\n</seg>"])
def test_short_texts(text: str) -> None:
    found = codec("full", 1).decode_grids([text], [["aa"]])[0]
    assert found.cells.tolist() == [[int(text == "<seg>aa\n</seg>")]] and (found.failure is None) == (
        text == "<seg>aa\n</seg>"
    )


def test_a_batch_is_what_its_texts_are_alone() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 3, (300, 4, 5))
    for layout in LAYOUTS:
        made = codec(layout, (4, 5))
        texts = made.encode_grids(cells, [[f"a{n}", "b"] for n in range(300)])
        texts[7], texts[200] = "nothing", texts[200].replace("a200", "b|")
        for decoder in ("robust", "compatible"):
            some = codec(layout, (4, 5), decoder=decoder)
            for one, text in zip(some.decode_grids(texts), texts, strict=True):
                alone = some.decode_grids([text])[0]
                assert np.array_equal(one.cells, alone.cells)
                assert (one.names, one.repairs, one.failure) == (alone.names, alone.repairs, alone.failure)


def test_masks_of_any_size() -> None:
    masks = torch.zeros(3, 40, 50, dtype=torch.bool)
    masks[0, :20, :25] = masks[1, 20:, 30:] = masks[2, 30:, 30:] = True
    made = codec("row", (8, 10))
    found = made.decode(made.encode(masks, ["dog", "red cat", "dog"]), (40, 50), ["dog", "red cat"])
    assert found.labels == ("dog", "red cat") and found.failure is None
    assert torch.equal(found.masks[0], masks[0] | masks[2])
    assert torch.equal(found.masks[1], masks[1] & ~masks[2])
    nothing = made.decode(made.encode(masks[:0], []), (40, 50), ["dog"])
    assert nothing.masks.shape == (0, 40, 50) and nothing.failure is None
    through = codec("row", (8, 10), upsample_through=336).decode(made.encode(masks[:1], ["dog"]), (40, 50))
    assert torch.equal(through.masks, masks[:1])


def test_labels_that_cannot_be_written() -> None:
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    for label in ("", "  ", "Others", "|"):
        with pytest.raises(ValueError, match="label"):
            codec("row").encode(masks, [label])
    assert "a b *6" in codec("row").encode(masks, ["a|b"])
    with pytest.raises(ValueError, match="separator"):
        codec("row", label_rule="reject").encode(masks, ["a|b"])
    with pytest.raises(ValueError, match="has 0 labels"):
        codec("row").encode_grids(np.ones((1, 6, 6), int), [[]])
    with pytest.raises(ValueError, match="expected"):
        codec("row").encode_grids(np.ones((1, 5, 6), int), [["a"]])
