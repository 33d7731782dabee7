"""Where on the grid a text goes on: against counts of the runs, which the formats define (spec, sections 2.1 and 3)."""

import re
from itertools import accumulate

import numpy as np
import pytest
import torch

from maskselect.codecs.boxwise import BoxwiseCodec, Geometry
from maskselect.codecs.descriptors import DescriptorCodec, Layout
from maskselect.tokens.sequence import place_number


def _masks(seed: int, count: int = 2) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 64, 64), bool)
    for mask in masks:
        top, left = rng.integers(0, 40, 2)
        height, width = rng.integers(8, 24, 2)
        mask[top : top + height, left : left + width] = rng.random((height, width)) < 0.7
    return torch.from_numpy(masks)


@pytest.mark.parametrize("layout", ["full", "image", "row"])
@pytest.mark.parametrize("seed", range(4))
def test_descriptors_go_on_after_the_cells_of_the_items(layout: Layout, seed: int) -> None:
    codec = DescriptorCodec(16, layout)
    text = codec.encode(_masks(seed), ["cat", "dog"])
    ends = [match.end() for match in re.finditer(r"[|\n]", text)]
    items = re.split(r"[|\n]", text[len("<seg>") :])[: len(ends)]
    counts = accumulate(1 if layout == "full" else int(item.split("*")[1]) for item in items)
    expected = [divmod(count, 16) if count < 256 else (-1, -1) for count in counts]
    assert codec.next_cells(text, [0, len("<seg>"), *ends, len(text)]) == [(-1, -1), (0, 0), *expected, (-1, -1)]


@pytest.mark.parametrize("geometry", ["cell_inclusive", "half_open_cell", "raster"])
@pytest.mark.parametrize("seed", range(4))
def test_boxwise_goes_on_after_the_bricks(geometry: Geometry, seed: int) -> None:
    codec = BoxwiseCodec(bins=16, longest=15, geometry=geometry, sampling="area")
    text = codec.encode(_masks(seed))
    for group in re.finditer(r"<box>\[\[(\d+) (\d+) (\d+) (\d+)\]\]</box><seg>([^<]*)</seg>", text):
        x1, y1, x2, y2 = map(int, group.groups()[:4])
        width, height = x2 - x1 + (geometry != "half_open_cell"), y2 - y1 + (geometry != "half_open_cell")
        rows = group[5].split("\n")
        start = group.start(5)
        assert codec.next_cells(text, [start]) == [(y1, x1)]
        for number, row in enumerate(rows):
            bricks = list(re.finditer(r"[fb]g(\d+)", row))
            for brick, filled in zip(bricks, accumulate(int(b[1]) for b in bricks), strict=True):
                down, across = divmod(filled, width) if geometry == "raster" else (number, filled)
                after = (y1 + down, x1 + across) if across < width else (y1 + down, -1)
                after = after if down < height else (-1, -1)
                assert codec.next_cells(text, [start + brick.end()]) == [after]
            start += len(row) + 1
        assert codec.next_cells(text, [group.end()]) == [(-1, -1)]


@pytest.mark.parametrize(
    "codec",
    [
        BoxwiseCodec(bins=16, longest=15),
        BoxwiseCodec(bins=16, longest=15, geometry="corner_scaled", bricks=False),
        BoxwiseCodec(bins=16, longest=15, geometry="raster"),
        DescriptorCodec(16, "row"),
        DescriptorCodec((8, 24), "image"),
        DescriptorCodec(16, "full"),
    ],
    ids=str,
)
def test_only_the_text_before_an_end_decides(codec: BoxwiseCodec | DescriptorCodec) -> None:
    text = codec.encode(_masks(7), ["cat", "dog"])
    for written in (text, text.replace("2", "99"), text.replace("<", "", 3), text[::-1], "no mask", ""):
        ends = list(range(len(written) + 1))
        found = codec.next_cells(written, ends)
        assert found == [codec.next_cells(written[:end], [end])[0] for end in ends]
        rows, columns = codec.shape
        assert all(-1 <= row < rows and -1 <= column < columns for row, column in found)


def test_the_opening_of_a_mask_is_its_first_word() -> None:
    boxes, rows = BoxwiseCodec(bins=16, longest=15), DescriptorCodec(16, "row")
    text = boxes.encode(_masks(1), ["cat", "dog"])
    # After a mask, the token that decides whether one more follows is the separator, not the <ref> behind it.
    assert [text[start:][:9] for start in boxes.openings(text, ["cat", "dog"])] == ["<ref>cat<", "\n<ref>dog"]
    prose = text.replace("\n<ref>dog", "; and <ref>dog")
    assert [prose[start:][:8] for start in boxes.openings(prose, ["cat", "dog"])] == ["<ref>cat", "<ref>dog"]
    assert boxes.openings("a cat", ["cat"]) == [0]
    text = rows.encode(_masks(1), ["cat", "dog"])
    assert [text[start:][:3] for start in rows.openings(text, ["cat", "dog"])] == ["cat", "dog"]
    assert text.index("cat") == rows.openings(text, ["cat"])[0]


def test_places_of_a_grid_have_different_numbers() -> None:
    places = [(row, column) for row in range(3) for column in (*range(4), -1)]
    assert sorted(place_number(row, column, (3, 4)) for row, column in places) == list(range(1, 16))
    assert place_number(-1, -1, (3, 4)) == 0
