"""Box-wise descriptors: a box for each instance and bricks inside it (Text4Seg++, arXiv 2509.06321).

    <ref>dog</ref><box>[[1 1 4 4]]</box><seg>bg1fg2bg1
    fg4
    fg3bg1
    bg1fg1bg2</seg>

No code of the paper is public. Where the paper is silent, a setting says what is done.

Shape letters: A answers, N instances of all answers, G cells of a side, H W pixels.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskselect.codecs.grammar import BoxwiseGrammar
from maskselect.codecs.grids import DecodedGrid, Sampling, decode_in_chunks, nearest_indices, to_grid, upsample
from maskselect.codecs.labels import LabelRule, Vocabulary, is_written, written
from maskselect.codecs.runs import read_numbers
from maskselect.structures.codec import Decoded, Grammar

Geometry = Literal["cell_inclusive", "half_open_cell", "corner_scaled", "raster"]

TAGS = ("<ref>", "</ref>", "<box>", "</box>", "<seg>", "</seg>")
_CHUNK = 128  # answers whose instances are handled by one NumPy call each
_COLOURS = ("bg", "fg")
_BRACKETED = re.compile(r"<([fb]g[0-9]+)>")
_TAG = re.compile("(" + "|".join(TAGS) + ")")
_GROUP = re.compile(r"<ref>([^<]+)</ref><box>\[\[(\d+) (\d+) (\d+) (\d+)\]\]</box><seg>([^<]+)</seg>", re.ASCII)
_OPENING = re.compile(r"(?:(?<=</seg>)\s*)?<ref>")
_BODY = re.compile(r"<seg>(.*?)(?:</seg>|$)", re.DOTALL)
_BRICK = re.compile(r"([fb]g)([0-9]+)")
_STEP = re.compile(r"(<box>)(?:\[\[([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+)\]\]</box>)?|(</?seg>)|[fb]g([0-9]+)|\n")


@dataclass(frozen=True)
class BoxwiseCodec:
    """Box-wise descriptors.

    Args:
        bins: number of values of a coordinate, 0 to bins - 1.
        longest: length of the longest brick; a longer run is several bricks, the longest first.
        geometry: what coordinates mean; the paper is silent.
            `cell_inclusive`: first and last occupied cell of a bins x bins grid; a run of a full row is two bricks.
            `half_open_cell`: first occupied cell and the cell after the last one; the last row and column of the grid
            have no coordinate and are cut off.
            `corner_scaled`: edges of the box in pixels, scaled to bins - 1; the mask inside the box is resampled to
            the cells of the box. This explains best that the paper has 63 bricks.
            `raster`: boxes as in `cell_inclusive`, bricks run on from row to row without a separator.
        bricks: whether bricks are tokens of their own, or ordinary text as in the paper's ablation.
        bracketed: bricks are written `<fg3>` and not `fg3`, so that they cannot be confused with words. Both are read.
        separator: text between instances; the paper is silent.
        no_group: what a text without any tag means: a prompt without target, or a failure. The paper is silent.
        sampling: how masks are brought to the grid; `corner_scaled` always takes the nearest pixel.
        keep_small: a mask that would vanish keeps the cell of its centroid.
        label_rule: what happens to separators in labels.
        unknown: a label that is not expected makes the decoding `fail`, or the instance is left out, which is counted.
        most: upper bound of the instances that `grammar` permits.
    """

    bins: int = 64
    longest: int = 63
    geometry: Geometry = "cell_inclusive"
    bricks: bool = True
    bracketed: bool = False
    separator: str = "\n"
    no_group: Literal["no_target", "failure"] = "no_target"
    sampling: Sampling = "nearest"
    keep_small: bool = True
    label_rule: LabelRule = "clean"
    unknown: Literal["fail", "drop"] = "fail"
    most: int = 32

    def __post_init__(self) -> None:
        """Refuses settings that no text can have."""
        if not 2 <= self.bins <= 1000 or not 1 <= self.longest <= 10000 or self.separator.strip():
            raise ValueError(
                f"bins {self.bins}, longest {self.longest} and separator {self.separator!r}; "
                "expected 2 to 1000, 1 to 10000, and white space or nothing"
            )

    @property
    def side(self) -> int:
        """Cells of a side of the grid: G."""
        return self.bins - (self.geometry == "corner_scaled")

    @property
    def _inclusive(self) -> int:
        return int(self.geometry in ("cell_inclusive", "raster"))

    @cached_property
    def _names(self) -> tuple[list[str], list[str]]:
        """Bricks of background and of foreground."""
        form = "<{}{}>" if self.bracketed else "{}{}"
        bg, fg = ([form.format(colour, n) for n in range(1, self.longest + 1)] for colour in _COLOURS)
        return bg, fg

    @property
    def numbers_masks(self) -> bool:
        """True, see `Codec`."""
        return True

    @property
    def tokens(self) -> tuple[str, ...]:
        """See `Codec`."""
        return TAGS + (tuple(self._names[1] + self._names[0]) if self.bricks else ())

    def grammar(self, labels: Sequence[str] | None = None) -> Grammar:
        """See `Codec`; without labels `roi0`, `roi1`, …."""
        names = None if labels is None else list(dict.fromkeys(written(label, self.label_rule) for label in labels))
        names_of = self._names[::-1]
        rows = self.geometry != "raster"
        return BoxwiseGrammar(names, self.bins, bool(self._inclusive), rows, names_of, self.separator, self.most)

    def encode(self, masks: Tensor, labels: Sequence[str] | None = None) -> str:
        """See `Codec`. One instance for each mask, empty ones left out; without labels `roi0`, `roi1`, …"""
        pixels = masks.numpy()
        kept = np.flatnonzero(pixels.any((1, 2)))
        names = [f"roi{n}" for n in range(len(kept))] if labels is None else [labels[n] for n in kept.tolist()]
        if self.geometry == "corner_scaled":
            cells = np.zeros((len(kept), self.side, self.side), bool)
            boxes = np.array([self._resampled(pixels[n], own) for n, own in zip(kept, cells, strict=True)])
            return self._encode_chunk(cells, names, [len(kept)], boxes.reshape(-1, 4))[0]
        cells = to_grid(pixels[kept], (self.side, self.side), self.sampling, self.keep_small)
        return self.encode_grids(cells, names, [len(kept)])[0]

    def _resampled(self, mask: np.ndarray, cells: np.ndarray) -> tuple[int, int, int, int]:
        """Writes the cells of one mask by `corner_scaled`; returns the box, second corner exclusive."""
        spans = []
        for axis, size in enumerate(mask.shape):
            inside = np.flatnonzero(mask.any(1 - axis))
            pixel = int(inside[0]), int(inside[-1]) + 1
            first, end = (int(edge * self.side / size + 0.5) for edge in pixel)
            first = min(first, self.side - 1)
            spans.append((*pixel, first, max(end, first + 1)))
        (top, bottom, y1, y2), (left, right, x1, x2) = spans
        rows, columns = nearest_indices(bottom - top, y2 - y1), nearest_indices(right - left, x2 - x1)
        cells[y1:y2, x1:x2] = mask[top:bottom, left:right][rows[:, None], columns]
        if self.keep_small and not cells.any():
            cells[y1 + (y2 - y1) // 2, x1 + (x2 - x1) // 2] = True
        return x1, y1, x2, y2

    def decode(self, text: str, size: tuple[int, int], labels: Sequence[str] | None = None) -> Decoded:
        """See `Codec`. One mask for each instance; several may have the same label."""
        found = self.decode_grids([text], None if labels is None else [labels])[0]
        masks = torch.from_numpy(upsample(found.cells, size))
        return Decoded(masks, found.names, found.repairs, found.unknown, found.failure)

    # Encoding.
    def encode_grids(self, grids: np.ndarray, labels: Sequence[str], counts: Sequence[int]) -> list[str]:
        """Instances to texts.

        Args:
            grids: (N, G, G) bool, the instances of all answers, one after another.
            labels: N of them.
            counts: number of instances of each of the A answers.

        Raises:
            ValueError: for another shape, for an instance without a cell, or for a label that cannot be written.
        """
        if grids.shape != (len(labels), self.side, self.side) or sum(counts) != len(labels):
            raise ValueError(f"grids of shape {grids.shape}; expected {(sum(counts), self.side, self.side)}")
        texts, end = [], 0
        for first in range(0, len(counts), _CHUNK):
            own = counts[first : first + _CHUNK]
            start, end = end, end + sum(own)
            texts += self._encode_chunk(grids[start:end], labels[start:end], own)
        return texts

    def _encode_chunk(
        self, grids: np.ndarray, labels: Sequence[str], counts: Sequence[int], boxes: np.ndarray | None = None
    ) -> list[str]:
        """boxes: (N, 4) x y x y, second corner exclusive; None for tight boxes."""
        if not len(grids):
            return [""] * len(counts)
        cells = np.ascontiguousarray(grids, bool).view(np.uint8)
        if self.geometry == "half_open_cell":
            cells = self._without_last(cells)
        if boxes is None:
            boxes = _tight_boxes(cells)
        bodies = self._bodies(cells, boxes)
        shown = (boxes - np.array([0, 0, 1, 1]) * self._inclusive).tolist()
        groups = [
            f"<ref>{written(label, self.label_rule)}</ref><box>[[{x1} {y1} {x2} {y2}]]</box><seg>{body}</seg>"
            for label, (x1, y1, x2, y2), body in zip(labels, shown, bodies, strict=True)
        ]
        bounds = np.cumsum([0, *counts]).tolist()
        return [self.separator.join(groups[start:end]) for start, end in pairwise(bounds)]

    @staticmethod
    def _without_last(cells: np.ndarray) -> np.ndarray:
        """The last row and column cleared; an instance that is only there moves to the ones before."""
        cells = cells.copy()
        only = np.flatnonzero(~cells[:, :-1, :-1].any((1, 2)))
        cells[only, :, -2] |= cells[only, :, -1]
        cells[only, -2] |= cells[only, -1]
        cells[:, -1] = 0
        cells[:, :, -1] = 0
        return cells

    def _bodies(self, cells: np.ndarray, boxes: np.ndarray) -> list[str]:
        """The bricks of each instance."""
        side = self.side
        x1, y1, x2, y2 = boxes.T
        axis = np.arange(side, dtype=np.int16)
        columns = (axis >= x1[:, None]) & (axis < x2[:, None])
        rows = (axis >= y1[:, None]) & (axis < y2[:, None])
        starts = np.empty(cells.shape, bool)
        np.not_equal(cells[:, :, 1:], cells[:, :, :-1], out=starts[:, :, 1:])
        starts &= columns[:, None]
        starts[np.arange(len(cells)), :, x1] = True
        starts &= rows[:, :, None]
        positions = np.flatnonzero(starts)
        bounds = np.searchsorted(positions, np.arange(len(cells) + 1) * side * side)
        counts = np.diff(bounds)
        place = positions % side
        first = place == np.repeat(x1, counts)
        ends = np.append(place[1:], 0)
        ends[np.append(first[1:], True)] = np.repeat(x2, y2 - y1)
        lengths = ends - place
        values = cells.reshape(-1)[positions].astype(np.int64)
        if self.geometry != "raster":
            first[bounds[:-1]] = False  # no separator before the first row
            codes = (lengths * 4 + values * 2 + first).tolist()
            bricks = list(map(self._bricks.__getitem__, codes))
            return ["".join(bricks[start:end]) for start, end in pairwise(bounds.tolist())]
        new = np.append(True, values[1:] != values[:-1])
        new[bounds[:-1]] = True
        kept = np.flatnonzero(new)
        joined, colours = np.add.reduceat(lengths, kept), values[kept]
        own = np.searchsorted(kept, bounds).tolist()
        names = list(map(self._bricks.__getitem__, (joined * 4 + colours * 2).tolist()))
        return ["".join(names[start:end]) for start, end in pairwise(own)]

    def _brick(self, colour: int, length: int) -> str:
        """A run, split where it is longer than the longest brick."""
        whole, rest = divmod(length, self.longest)
        names = self._names[colour]
        return names[-1] * whole + (names[rest - 1] if rest else "")

    @cached_property
    def _bricks(self) -> list[str]:
        """By 4 * length + 2 * colour + whether it begins a row."""
        most = self.side**2 if self.geometry == "raster" else self.side
        runs = [(length, colour) for length in range(most + 1) for colour in (0, 1)]
        return [line + self._brick(colour, length) for length, colour in runs for line in ("", "\n")]

    def foreground(self, text: str, labels: Sequence[str]) -> list[list[tuple[int, int]]]:
        """See `Codec`."""
        bodies = [match.span(1) for match in _BODY.finditer(text)]
        runs = [
            [match.span() for match in _BRICK.finditer(text, *body) if match[1] == "fg"] or [body] for body in bodies
        ]
        return runs if len(runs) == len(labels) else [[(0, len(text))] for _ in labels]

    def openings(self, text: str, labels: Sequence[str]) -> list[int]:
        """See `Codec`: the separator before a `<ref>`, or the `<ref>`, which say that there is one more instance."""
        starts = [match.start() for match in _OPENING.finditer(text)]
        return starts if len(starts) == len(labels) else [0 for _ in labels]

    @property
    def shape(self) -> tuple[int, int]:
        """See `Codec`."""
        return self.side, self.side

    def next_cells(self, text: str, ends: Sequence[int]) -> list[tuple[int, int]]:
        """See `Codec`. Inside a `<seg>` after a `<box>`: the cell after the bricks that are written."""
        none = (-1, -1)
        changes: list[tuple[int, tuple[int, int]]] = [(0, none)]
        box: list[int] | None = None
        row, column = none
        # Nothing before a <box> matters behind it.
        for match in _STEP.finditer(text, max(text.rfind("<box>", 0, min(ends, default=0)), 0)):
            tag, digits = match[6], match[7]
            if match[1]:
                box, row = None, -1
                changes.append((match.start() + len("<box>"), none))
                if match[2]:
                    most = self.side - self._inclusive
                    first = [min(int(digit[:9]), self.side - 1) for digit in match.groups()[1:3]]
                    box = first + [min(int(digit[:9]), most) + self._inclusive for digit in match.groups()[3:5]]
                continue
            if box is None or (row < 0 and tag != "<seg>"):
                continue
            left, top, right, bottom = box
            if tag:
                row, column = (top, left) if tag == "<seg>" else none
                changes.append((match.end(), (row, column) if row < bottom and column < right else none))
                box = box if tag == "<seg>" else None
            elif digits is None:
                row, column = row + 1, left
                changes.append((match.end(), (row, column) if row < bottom else none))
            else:
                for place in range(1, len(digits) + 1):
                    end = column + _bounded(digits[:place])
                    changes.append((match.start(7) + place, self._next_cell(row, end, box)))
                column = end
        starts = [start for start, _ in changes]
        return [changes[bisect_right(starts, end) - 1][1] for end in ends]

    def _next_cell(self, row: int, column: int, box: list[int]) -> tuple[int, int]:
        """The cell in a box before which bricks of a row end."""
        left, _, right, bottom = box
        if self.geometry == "raster":
            lines, column = divmod(column - left, max(right - left, 1))
            row, column = row + lines, column + left
        if row >= bottom:
            return -1, -1
        return (row, column) if column < right else (row, -1)

    # Decoding.
    def decode_grids(self, texts: Sequence[str], names: Sequence[Sequence[str]] | None = None) -> list[DecodedGrid]:
        """Texts to instances. Never raises for any text.

        Args:
            texts: with any number of groups, prose between them allowed.
            names: for each text the labels that may occur; None if any may.
        """
        return decode_in_chunks(texts, names, _CHUNK, self._decode_canonical, self._decode_robust)

    def _decode_canonical(
        self, texts: Sequence[str], names: Sequence[Sequence[str] | None]
    ) -> list[DecodedGrid] | None:
        """The instances if every text is well formed, else None."""
        counts, corners, labels, bodies = [], [], [], []
        for text, own in zip(texts, names, strict=True):
            plain = _BRACKETED.sub(r"\1", text) if "g" in text and ("<fg" in text or "<bg" in text) else text
            groups = _GROUP.findall(plain)
            if plain.count("<") != 6 * len(groups) or (not groups and self.no_group == "failure"):
                return None
            expected = None if own is None else {written(name, self.label_rule) for name in own}
            for label, x1, y1, x2, y2, body in groups:
                if label not in expected if expected is not None else not is_written(label):
                    return None
                corners += [x1, y1, x2, y2]
                labels.append(label)
                bodies.append(body)
            counts.append(len(groups))
        boxes = np.array([int(corner[:9]) for corner in corners], np.int64).reshape(-1, 4)
        boxes[:, 2:] += self._inclusive
        sizes = boxes[:, 2:] - boxes[:, :2]
        if (sizes < 1).any() or boxes.max(initial=0) > self.bins - 1 + self._inclusive:
            return None
        cells = self._canonical_cells(bodies, boxes, sizes)
        if cells is None or not cells.any((1, 2)).all():
            return None
        bounds = np.cumsum([0, *counts]).tolist()
        return [DecodedGrid(cells[start:end], tuple(labels[start:end])) for start, end in pairwise(bounds)]

    def _canonical_cells(self, bodies: list[str], boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray | None:
        """(N, G, G) bool; None if the bricks of a body do not fill its box."""
        widths, heights = sizes.T
        if self.geometry == "raster":
            widths, heights = widths * heights, np.ones_like(heights)
        if any(body.count("\n") != height - 1 for body, height in zip(bodies, heights.tolist(), strict=True)):
            return None
        data = "\n".join([*bodies, ""]).encode("utf-8", "surrogatepass")
        text = np.frombuffer(data + bytes(16), np.uint8)
        middles = np.flatnonzero(text == ord("g"))
        lengths, ends = read_numbers(text, middles + 1)
        foreground = text[middles - 1] == ord("f")
        last = text[ends] == ord("\n")  # of its line
        # Every byte belongs to a brick or ends a line.
        if not np.array_equal(middles - 1, np.append(0, (ends + last)[:-1])[: len(ends)]):
            return None
        if len(ends) and (ends[-1] + 1 != len(data) or lengths.min() < 1 or lengths.max() > self.longest):
            return None
        if not (foreground | (text[middles - 1] == ord("b"))).all() or last.sum() != heights.sum():
            return None
        if (np.diff(np.cumsum(lengths)[last], prepend=0) != np.repeat(widths, heights)).any():
            return None
        cells = np.zeros((len(bodies), self.side, self.side), bool)
        cells[_inside(boxes, self.side)] = np.repeat(foreground, lengths)
        return cells

    def _decode_robust(self, text: str, expected: Sequence[str] | None) -> DecodedGrid:
        """One text of any kind."""
        words = Vocabulary(expected, self.label_rule)
        groups, repairs = _groups(_BRACKETED.sub(r"\1", text))
        empty = np.zeros((0, self.side, self.side), bool)
        if not groups and not repairs:
            failure = "the text has no group" if self.no_group == "failure" else None
            return DecodedGrid(empty, (), failure=failure)
        instances, labels = [], []
        for place, group in enumerate(groups):
            label = " ".join(group.get("ref", "").split())
            repairs += label != group.get("ref") or not label
            number = words.number(label) if label else None
            box, box_repairs = self._box(group.get("box", ""))
            if number == 0:
                words.unknown[label] = None
            if box is None or (label and not number):
                repairs += 1
                continue
            x1, y1, x2, y2 = box
            cells, cell_repairs = self._cells(group.get("seg"), x2 - x1, y2 - y1)
            repairs += box_repairs + cell_repairs + (not cells.any())
            if cells.any():
                instances.append(np.zeros((self.side, self.side), bool))
                instances[-1][y1:y2, x1:x2] = cells
                labels.append(words.names[number - 1] if number else f"roi{place}")
        repairs += len(words.replaced)
        failure = None
        if words.unknown and self.unknown == "fail":
            failure = f"unknown label {next(iter(words.unknown))[:60]!r}"
        elif not instances:
            failure = "no group has a label, a box and a foreground cell"
        if failure:
            return DecodedGrid(empty, (), repairs, tuple(words.unknown), failure)
        return DecodedGrid(np.stack(instances), tuple(labels), repairs, tuple(words.unknown))

    def _box(self, content: str) -> tuple[tuple[int, int, int, int] | None, int]:
        """x1 y1 x2 y2, second corner exclusive, and the number of repairs; None for fewer than four numbers."""
        numbers = [int(digits[:9]) for digits in re.findall("[0-9]+", content)[:4]]
        if len(numbers) < 4:
            return None, 1
        repairs = int(content != "[[{} {} {} {}]]".format(*numbers))
        spans = []
        for pair in (numbers[::2], numbers[1::2]):
            first, last = sorted(min(value, self.bins - 1) for value in pair)
            end = max(last + self._inclusive, first + 1)
            end = min(end, self.bins - 1 + self._inclusive)
            first = min(first, end - 1)
            repairs += [first, end - self._inclusive] != pair
            spans.append((first, end))
        (x1, x2), (y1, y2) = spans
        return (x1, y1, x2, y2), repairs

    def _cells(self, content: str | None, width: int, height: int) -> tuple[np.ndarray, int]:
        """Cells (height, width) of a box, and the number of repairs; a box without bricks is filled."""
        if content is None:
            return np.ones((height, width), bool), 1
        lines = content.strip().split("\n")
        rows = self.geometry != "raster"
        repairs = 0
        if len(lines) == 1 < height or not rows:
            repairs += rows or len(lines) > 1
            if len(lines) == 1:
                return self._line(lines[0], width * height, repairs, (height, width))
        repairs += abs(height - len(lines))
        cells = np.zeros((height, width), bool)
        for row, line in zip(cells, lines, strict=False):
            found, more = self._line(line, width, 0, (width,))
            row[:] = found
            repairs += more
        return cells, repairs

    def _line(self, line: str, length: int, repairs: int, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """Bricks that have to fill `length` cells: clipped, or filled with background."""
        bricks = [(colour == "fg", _bounded(digits)) for colour, digits in _BRICK.findall(line)]
        repairs += bool(_BRICK.sub("", line).strip())
        repairs += sum(not 1 <= n <= self.longest for _, n in bricks) + (sum(n for _, n in bricks) != length)
        cells = np.zeros(length, bool)
        place = 0
        for foreground, n in bricks:
            cells[place : place + n] = foreground
            place = min(place + n, length)
        return cells.reshape(shape), repairs


def _tight_boxes(cells: np.ndarray) -> np.ndarray:
    """(N, G, G) uint8 to (N, 4) x1 y1 x2 y2, second corner exclusive. Raises ValueError for an empty instance."""
    spans = []
    for axis in (1, 2):
        filled = cells.max(axis).view(bool)
        spans.append((filled.argmax(1), filled.shape[1] - filled[:, ::-1].argmax(1)))
    if not filled.any(1).all():
        raise ValueError("an instance has no cell")
    (x1, x2), (y1, y2) = spans
    return np.stack([x1, y1, x2, y2], 1)


def _inside(boxes: np.ndarray, side: int) -> np.ndarray:
    """Which cells are inside each box: (N, 4) to (N, side, side) bool."""
    axis = np.arange(side)
    x1, y1, x2, y2 = boxes.T[:, :, None]
    return ((axis >= y1) & (axis < y2))[:, :, None] & ((axis >= x1) & (axis < x2))[:, None]


def _groups(text: str) -> tuple[list[dict[str, str]], int]:
    """The content of ref, box and seg of each group, and the number of tags that are missing or out of place."""
    _, *parts = _TAG.split(text)
    groups: list[dict[str, str]] = []
    repairs, open_tag = 0, ""
    for tag, content in zip(parts[::2], parts[1::2], strict=True):
        name = tag.strip("</>")
        if tag.startswith("</"):
            repairs += name != open_tag
            open_tag = ""
            continue
        repairs += bool(open_tag)
        if not groups or name == "ref" or name in groups[-1]:
            groups.append({})
        groups[-1][name] = content
        open_tag = name
    return groups, repairs + bool(open_tag)


def _bounded(digits: str) -> int:
    """A length of any number of digits, at most 10^8 - 1."""
    return int(digits) if len(digits) < 9 else 10**8 - 1
