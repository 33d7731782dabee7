"""Image-wise semantic descriptors: one label for every cell of a grid (Text4Seg, arXiv 2410.09855, section 3).

    full    others| others| dog| …                 one label a cell
    image   others *8| dog *2| …                   I-RLE: runs cross the ends of rows
    row     others *6\n others *2| dog *2| …       R-RLE: runs end with the row

Shape letters: B texts, H W pixels, h w cells, R runs.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import mul
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskselect.codecs.grammar import DescriptorGrammar
from maskselect.codecs.grids import DecodedGrid, Sampling, decode_in_chunks, label_map, upsample
from maskselect.codecs.labels import OTHERS, LabelRule, Vocabulary, is_written, normal, written
from maskselect.codecs.runs import read_runs
from maskselect.structures.codec import Decoded, Grammar

Layout = Literal["full", "image", "row"]

_CHUNKS = {"full": 32, "image": 128, "row": 128}  # texts whose runs are handled by one NumPy call each; fits the cache
_ITEM = re.compile(r"[ \n]*([^|\n<]*?)[ ]*(?:\*[ ]*[0-9]+)?(?=[|\n<]|$)")
_SEPARATOR = re.compile(r"[|\n]")
_COUNT = re.compile(r"\*[ ]*([0-9]+)")
_LOOSE_ITEM = re.compile(r"(.*?)\s*\*\s*([0-9]+)", re.DOTALL)


@dataclass(frozen=True)
class DescriptorCodec:
    """Image-wise descriptors.

    Args:
        grid: side of the grid, or (h, w).
        layout: `full`, `image` (I-RLE) or `row` (R-RLE).
        decoder: `robust` repairs and counts. `compatible` does what the released decoder does: any malformed item
            fails the whole text, rows are not checked, a short text is filled with its last label, and without the
            word `others` the first label counts as background. Its failures count as empty masks in published
            numbers.
        unknown: a word that is no expected label makes the robust decoder `fail`, or its cells become `others`, which
            is counted. The compatible decoder takes unknown words as `others`.
        sampling: how masks are brought to the grid.
        keep_small: a mask that would vanish keeps the cell of its centroid. The released code lets it vanish.
        label_rule: what happens to separators in labels.
        upsample_through: side of a square through which decoded cells are upsampled; the released code uses 336 for
            semantic segmentation and none for referring segmentation.
        special_tags: `<seg>` and `</seg>` are tokens of their own. In the released models they are ordinary text.
    """

    grid: int | tuple[int, int] = 16
    layout: Layout = "row"
    decoder: Literal["robust", "compatible"] = "robust"
    unknown: Literal["fail", "others"] = "fail"
    sampling: Sampling = "nearest"
    keep_small: bool = False
    label_rule: LabelRule = "clean"
    upsample_through: int | None = None
    special_tags: bool = False

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = (self.grid, self.grid) if isinstance(self.grid, int) else self.grid
        if height < 1 or width < 1 or height * width > 1 << 20:
            raise ValueError(f"grid {self.grid} has no cells, or too many")
        return height, width

    @property
    def numbers_masks(self) -> bool:
        """False, see `Codec`."""
        return False

    @property
    def tokens(self) -> tuple[str, ...]:
        """See `Codec`."""
        return ("<seg>", "</seg>") if self.special_tags else ()

    def grammar(self, labels: Sequence[str] | None = None) -> Grammar:
        """See `Codec`."""
        names = dict.fromkeys(written(label, self.label_rule) for label in _needed(labels))
        return DescriptorGrammar(self.shape, self.layout, (OTHERS, *names))

    def encode(self, masks: Tensor, labels: Sequence[str] | None = None) -> str:
        """See `Codec`. Masks of equal labels are united; where others overlap, the later mask wins."""
        names = [written(label, self.label_rule) for label in _needed(labels)]
        number = {name: place for place, name in enumerate(dict.fromkeys(names), 1)}
        cells = label_map(masks.numpy(), self.shape, self.sampling, self.keep_small)
        lookup = np.array([0, *(number[name] for name in names)])
        return self.encode_grids(lookup[cells][None], [list(number)])[0]

    def decode(self, text: str, size: tuple[int, int], labels: Sequence[str] | None = None) -> Decoded:
        """See `Codec`. One mask for each label that occurs, in the order of the labels."""
        found = self.decode_grids([text], None if labels is None else [labels])[0]
        present = [] if found.failure else [n for n in np.unique(found.cells).tolist() if n]
        masks = upsample(found.cells, size, self.upsample_through) == np.array(present, np.int64)[:, None, None]
        names = tuple(found.names[n - 1] for n in present)
        return Decoded(torch.from_numpy(masks), names, found.repairs, found.unknown, found.failure)

    def foreground(self, text: str, labels: Sequence[str]) -> list[list[tuple[int, int]]]:
        """See `Codec`."""
        runs: dict[str, list[tuple[int, int]]] = {normal(label): [] for label in labels}
        for match in _ITEM.finditer(text, text.find("<seg>") + len("<seg>")):
            runs.get(normal(match[1]), []).append(match.span())
        return [spans or [(0, len(text))] for spans in runs.values()]

    def openings(self, text: str, labels: Sequence[str]) -> list[int]:
        """See `Codec`: the word of the first run of each mask."""
        spans = (runs[0] for runs in self.foreground(text, labels))
        return [end - len(text[start:end].lstrip()) for start, end in spans]

    def next_cells(self, text: str, ends: Sequence[int]) -> list[tuple[int, int]]:
        """See `Codec`. A run counts when the separator after it is written."""
        height, width = self.shape
        start = text.find("<seg>") + len("<seg>")
        stop = text.find("</seg>", start)
        changes = [(0, -1), (start, 0)] if start >= len("<seg>") else [(0, -1)]
        place, last, row = 0, start, 0
        for match in _SEPARATOR.finditer(text, start, len(text) if stop < 0 else stop) if len(changes) > 1 else ():
            count = _COUNT.search(text, last, match.start())
            last = match.end()
            if self.layout == "row" and match[0] == "\n":
                row += count is not None
                place = row * width
            else:
                place += 1 if self.layout == "full" else _bounded(count[1]) if count else 0
            changes.append((last, place))
        if stop >= 0:
            changes.append((stop + len("</seg>"), -1))
        starts = [begin for begin, _ in changes]
        places = [changes[bisect_right(starts, end) - 1][1] for end in ends]
        return [divmod(n, width) if 0 <= n < height * width else (-1, -1) for n in places]

    # Encoding.
    def encode_grids(self, grids: np.ndarray, names: Sequence[Sequence[str]]) -> list[str]:
        """Grids to texts.

        Args:
            grids: (B, h, w) of any integer type, or bool; 0 for `others`.
            names: for each grid the labels of 1, 2, ….

        Raises:
            ValueError: for another shape, for a number without a label, or for a label that cannot be written.
        """
        if grids.shape != (len(names), *self.shape):
            raise ValueError(f"grids of shape {grids.shape}; expected {(len(names), *self.shape)}")
        size = _CHUNKS[self.layout]
        chunks = range(0, len(grids), size)
        return [text for n in chunks for text in self._encode_chunk(grids[n : n + size], names[n : n + size])]

    @cached_property
    def _tails(self) -> list[str]:
        return [f" *{length}" for length in range(self.shape[0] * self.shape[1] + 1)]

    def _encode_chunk(self, grids: np.ndarray, names: Sequence[Sequence[str]]) -> list[str]:
        flat = np.ascontiguousarray(grids).reshape(len(grids), -1)
        starts = np.empty(flat.shape, bool)
        np.not_equal(flat[:, 1:], flat[:, :-1], out=starts[:, 1:])
        starts[:, 0] = True
        if self.layout == "row":
            starts[:, :: self.shape[1]] = True
        positions = np.flatnonzero(starts)
        lengths = np.diff(positions, append=flat.size).tolist()
        numbers = flat.reshape(-1)[positions].astype(np.int64)
        bounds = np.searchsorted(positions, np.arange(0, flat.size + 1, flat.shape[1])).tolist()
        highest = np.maximum.reduceat(numbers, bounds[:-1]).tolist()
        if numbers.min() < 0:
            raise ValueError("grids hold negative numbers")
        heads = (2 * numbers + (positions % self.shape[1] == 0) * (self.layout == "row")).tolist()
        texts = []
        for (start, end), labels, last in zip(pairwise(bounds), names, highest, strict=True):
            words = [OTHERS, *(written(label, self.label_rule) for label in labels[:last])]
            if last >= len(words):
                raise ValueError(f"a grid holds number {last} and has {len(labels)} labels")
            if self.layout == "full":
                pieces = [word + "| " for word in words for _ in "ab"]
                runs = ["<seg>", *map(mul, map(pieces.__getitem__, heads[start:end]), lengths[start:end])]
                runs[-1] = runs[-1][:-2] + "\n</seg>"
                texts.append("".join(runs))
            else:
                pieces = [separator + word for word in words for separator in ("| ", "\n ")]
                runs = [""] * (2 * (end - start))
                runs[::2] = map(pieces.__getitem__, heads[start:end])
                runs[1::2] = map(self._tails.__getitem__, lengths[start:end])
                texts.append(f"<seg>{''.join(runs)[2:]}\n</seg>")
        return texts

    # Decoding.
    def decode_grids(self, texts: Sequence[str], names: Sequence[Sequence[str]] | None = None) -> list[DecodedGrid]:
        """Texts to grids. Never raises for any text.

        Args:
            texts: each with one `<seg>` … `</seg>`, prose around it allowed.
            names: for each text the labels of 1, 2, …; None if any label may occur: then labels are numbered in order
                of appearance.
        """
        return decode_in_chunks(texts, names, _CHUNKS[self.layout], self._decode_canonical, self._decode_alone)

    def _decode_alone(self, text: str, names: Sequence[str] | None) -> DecodedGrid:
        """One text of any kind."""
        decode = self._decode_robust if self.decoder == "robust" else self._decode_compatible
        return decode(text, Vocabulary(names, self.label_rule))

    def _decode_canonical(
        self, texts: Sequence[str], names: Sequence[Sequence[str] | None]
    ) -> list[DecodedGrid] | None:
        """The grids if every text is well formed, else None."""
        height, width = self.shape
        bodies = []
        # A line feed alone is found several times faster; without rows there is no other one.
        last = "\n" if self.layout == "full" else "\n</seg>"
        for text in texts:
            start = text.find("<seg>") + 5
            end = text.find(last, start)
            if start < 5 or end < 0 or not text.startswith("\n</seg>", end):
                return None
            bodies.append(text[start:end].encode("utf-8", "surrogatepass"))
        runs = read_runs(bodies, self.layout != "full")
        if runs is None:
            return None
        first = runs.bounds[:-1]
        breaks = np.add.reduceat(runs.rows, first, dtype=np.int64)
        starts = np.cumsum(runs.lengths) - runs.lengths
        if (np.add.reduceat(runs.lengths, first) != height * width).any() or (starts[runs.rows] % width).any():
            return None
        if self.layout != "full" and (breaks != (height if self.layout == "row" else 1)).any():
            return None
        numbers: list[int] = []
        labels: list[tuple[str, ...]] = []
        for expected, (start, end) in zip(names, pairwise(runs.name_bounds), strict=True):
            words = runs.names[start:end]
            own = list(expected or ())
            if expected is None:
                own = [word for word in words if word != OTHERS]
                if not all(map(is_written, own)) or (self.decoder == "compatible" and len(own) == len(words)):
                    return None  # without `others` the released decoder numbers the labels from 0
                order = dict(zip(own, range(1, len(own) + 1), strict=True))
            else:
                order = {written(name, self.label_rule): number for number, name in reversed([*enumerate(own, 1)])}
            order[OTHERS] = 0
            try:
                numbers += [order[word] for word in words]
            except KeyError:
                return None
            labels.append(tuple(own))
        cells = np.repeat(np.array(numbers, np.uint16)[runs.words], runs.lengths).reshape(-1, height, width)
        return [DecodedGrid(grid, own) for grid, own in zip(cells, labels, strict=True)]

    def _failed(self, failure: str, words: Vocabulary, repairs: int = 0) -> DecodedGrid:
        return DecodedGrid(np.zeros(self.shape, np.uint16), tuple(words.names), repairs, tuple(words.unknown), failure)

    def _decode_robust(self, text: str, words: Vocabulary) -> DecodedGrid:
        """One text of any kind."""
        height, width = self.shape
        _, opened, body = text.partition("<seg>")
        body, closed, _ = body.partition("</seg>")
        if not opened:
            return self._failed("the text has no <seg>", words)
        lines = [re.split(r"\s*\|\s*", line) for line in re.split(r"\n\s*", body.strip())]
        if self.layout == "full" and not closed:
            lines[-1].pop()  # the word may be cut
        repairs = 0 if closed else 1
        rows: list[list[tuple[int, int]]] = [[] for _ in lines]  # number and length of each run
        for line, runs in zip(lines, rows, strict=True):
            for item in map(str.strip, line):
                match = None if item in words.exact else _LOOSE_ITEM.fullmatch(item)
                word, length = (match[1], _bounded(match[2])) if match else (item, int(self.layout == "full"))
                repairs += (match is not None) == (self.layout == "full")
                if not word or not length:
                    repairs += match is not None or self.layout == "full"
                    continue
                number = words.number(word)
                repairs += number is None
                runs.append((number or 0, length))
        if not any(rows):
            return self._failed("nothing between <seg> and </seg> can be read", words, repairs)
        if words.unknown and self.unknown == "fail":
            return self._failed(f"unknown word {next(iter(words.unknown))[:60]!r}", words, repairs)
        repairs += len(words.replaced)
        fits = sum(length for runs in rows for _, length in runs) == height * width
        if self.layout == "row" and not (len(rows) == 1 and fits):
            repairs += abs(height - len(rows))
        else:  # one line; a text of the other run-length layout is accepted as one repair
            repairs += (self.layout == "row" and height > 1) or len(rows) > 1
            rows, height, width = [[run for runs in rows for run in runs]], 1, height * width
        cells = np.zeros((height, width), np.uint16)
        for row, runs in zip(cells, rows, strict=False):
            numbers, lengths = np.array(runs, np.int64).reshape(-1, 2).T
            ends = np.minimum(np.cumsum(lengths), width)
            row[: ends.max(initial=0)] = np.repeat(numbers, np.diff(ends, prepend=0))
            repairs += int(lengths.sum()) != width
        return DecodedGrid(cells.reshape(self.shape), tuple(words.names), repairs, tuple(words.unknown))

    def _decode_compatible(self, text: str, words: Vocabulary) -> DecodedGrid:
        """One text as the released decoders read it, which give an all-zero grid for every failure."""
        left = self.shape[0] * self.shape[1]
        _, opened, body = text.partition("<seg>")
        body = body.partition("</seg>")[0].strip("\n")
        if not opened:
            return self._failed("the text has no <seg>", words)
        items = [item for row in (body.split("\n ") if self.layout == "row" else [body]) for item in row.split("| ")]
        runs: list[tuple[str, int]] = []
        try:
            for item in items:
                word, length = [item, "1"] if self.layout == "full" else item.split(" *")
                kept = min(max(int(length), 0), left)
                left -= kept
                runs += [(word, kept)] if kept else []
        except ValueError:
            return self._failed("an item is malformed", words)
        if not runs:
            return self._failed("all runs are empty", words)
        runs[-1] = runs[-1][0], runs[-1][1] + left
        if words.open:
            order = sorted(dict.fromkeys(word for word, _ in runs), key=lambda word: word != OTHERS)
            number, names = {word: place for place, word in enumerate(order)}, tuple(order[1:])
        else:
            number, names = words.exact, tuple(words.names)
            words.unknown |= dict.fromkeys(word for word, _ in runs if word != OTHERS and word not in number)
        numbers = [number.get(word, 0) for word, _ in runs]
        cells = np.repeat(np.array(numbers, np.uint16), [length for _, length in runs])
        return DecodedGrid(cells.reshape(self.shape), names, 0, tuple(words.unknown))


def _needed(labels: Sequence[str] | None) -> Sequence[str]:
    if labels is None:
        raise ValueError("image-wise descriptors need labels; expected one for each mask")
    return labels


def _bounded(digits: str) -> int:
    """A count of any number of digits, at most 10^8 - 1."""
    return int(digits) if len(digits) < 9 else 10**8 - 1
