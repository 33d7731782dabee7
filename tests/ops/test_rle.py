"""Run-length codes: pycocotools' own results, and nothing that pycocotools was not made for reaches it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from maskselect.ops import rle

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@settings(max_examples=100)
@given(mask=MASKS)
def test_there_and_back(mask: np.ndarray) -> None:
    code = rle.encode(mask[None])[0]
    assert np.array_equal(rle.decode(code), mask)
    assert np.array_equal(rle.decode({**code, "counts": code["counts"].encode()}), mask)
    runs = rle.run_lengths(code["counts"].encode())
    assert runs.sum() == mask.size and runs[1::2].sum() == mask.sum()
    assert np.array_equal(rle.decode({"size": code["size"], "counts": runs.tolist()}), mask)


def test_long_runs() -> None:
    mask = np.zeros((3000, 2000), bool)
    mask[17:2999, 5:1990] = True
    runs = rle.run_lengths(rle.encode(mask[None])[0]["counts"].encode())
    assert runs[0] == 5 * 3000 + 17 and runs[1::2].sum() == mask.sum()


@settings(max_examples=300)
@given(counts=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30) | st.binary(max_size=30))
def test_any_counts_decode_or_are_refused(counts: str | bytes) -> None:
    code = {"size": [4, 5], "counts": counts}
    try:
        found = rle.decode(code)
    except ValueError:
        return
    runs = rle.run_lengths(counts.encode() if isinstance(counts, str) else counts)
    assert found.shape == (4, 5) and found.sum() == runs[1::2].sum()


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ({"size": [4, 4], "counts": [0, 15]}, r"size \[4, 4\]: its runs hold 15"),
        ({"size": [4, 4], "counts": [-1, 17]}, "neither a text nor a list"),
        ({"size": [4, 4], "counts": [0.5, 15.5]}, "neither a text nor a list"),
        ({"size": [4, 4]}, "neither a text nor a list"),
        ({"size": [4], "counts": "0"}, r"expected \[H, W\]"),
        ({"size": [10**9, 10**9], "counts": "0"}, r"expected \[H, W\]"),
        ({"counts": "0"}, r"expected \[H, W\]"),
        ({"size": [4, 4], "counts": "é"}, "not a run-length string"),
        ({"size": [4, 4], "counts": "P"}, "not a run-length string"),  # says that more follows
        ({"size": [4, 4], "counts": "P" * 9 + "0"}, "too large"),
        ([[1, 2, 3, "x", 5, 6]], "numbers alone"),
        ([[1, 2, float("nan"), 4, 5, 6]], "finite"),
        ([[0, 0, 1e12, 0, 1e12, 1]], "pixels long"),
        (["text"], "numbers alone"),
        ([5], "finite"),
        ("text", "not a COCO segmentation"),
        ([{"size": [4, 4], "counts": [16]}, {"size": [4, 5], "counts": [20]}], "different sizes"),
    ],
)
def test_damage(segmentation: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        rle.decode(segmentation, (4, 4))


def test_polygons_are_united_and_short_ones_left_out() -> None:
    square, other = [1, 1, 4, 1, 4, 4, 1, 4], [2, 2, 6, 2, 6, 6, 2, 6]
    expected = coco.decode(coco.merge(coco.frPyObjects([square, other], 8, 9))).astype(bool)
    assert np.array_equal(rle.decode([square, other, [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7]], (8, 9)), expected)
    assert not rle.decode([], (8, 9)).any() and not rle.decode([[1, 2]], (8, 9)).any()
    with pytest.raises(ValueError, match="no size of its own"):
        rle.decode([square])


def test_a_list_of_codes_is_united() -> None:
    codes = [{"size": [2, 2], "counts": [0, 1, 3]}, {"size": [2, 2], "counts": [3, 1]}]
    assert rle.decode(codes, (2, 2)).tolist() == [[True, False], [False, True]]
