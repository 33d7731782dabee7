"""Runs of well-formed texts, read by NumPy on bytes: many texts at once, and exact or not at all.

Shape letters: B texts, R runs of all texts, C words of all texts.
"""

from dataclasses import dataclass
from itertools import cycle
from operator import mul

import numpy as np

_PAD = bytes(16)
_MOST_DIGITS = 7
_KEEP = np.array([2 ** (8 * count) - 1 for count in range(9)], np.uint64)  # the first bytes of eight


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of B texts, one text after another.

    lengths, rows, words: (R,) length, whether a row begins, and the place in the list of words.
    bounds: (B + 1,) where the runs of each text begin.
    names: C words, text after text, each in order of appearance.
    name_bounds: (B + 1,) where the words of each text begin.
    """

    lengths: np.ndarray
    rows: np.ndarray
    words: np.ndarray
    bounds: np.ndarray
    names: list[str]
    name_bounds: list[int]


def read_runs(bodies: list[bytes], counted: bool) -> Runs | None:
    """The runs of texts between their tags, without the final line feed; None if any text is malformed.

    Args:
        bodies: in UTF-8, surrogates included.
        counted: items are `word *n`, joined by `| ` or by a row break; else they are words joined by `| `.
    """
    if not counted:
        runs = _alternating_runs(bodies)
        if runs is not None:
            return runs
    parts = [(b"\n " if counted else b"| ") + body for body in bodies]
    data = b"".join(parts) + (b"\n " if counted else b"| ")
    size = len(data)
    data += _PAD
    text = np.frombuffer(data, np.uint8)
    if counted:
        stars = np.flatnonzero(text == ord("*"))
        lengths, ends = read_numbers(text, stars + 1)
        starts = np.append(2, ends[:-1] + 2)
        separators = text[ends]
        breaks = np.append(True, separators[:-1] == ord("\n"))[: len(ends)]
        sizes = stars - 1 - starts
        valid = (lengths > 0) & (text[stars - 1] == ord(" ")) & ((separators == ord("|")) | (separators == ord("\n")))
    else:
        ends = np.flatnonzero(text == ord("|"))
        starts, ends = ends[:-1] + 2, ends[1:]
        lengths, breaks = np.ones(len(starts), np.int64), np.zeros(len(starts), bool)
        sizes = ends - starts
        valid = sizes > 0
    if not len(ends) or ends[-1] + 2 != size or not (valid & (sizes > 0) & (text[ends + 1] == ord(" "))).all():
        return None
    heads = np.cumsum([0, *map(len, parts)])
    first = np.searchsorted(starts, heads[:-1] + 2)
    if first[-1] >= len(starts) or (starts[first] != heads[:-1] + 2).any():
        return None
    if not counted:
        kept = ~_same_words(text, starts, sizes, np.arange(-1, len(starts) - 1))
        kept[first] = True
        places = np.flatnonzero(kept)
        lengths = np.diff(places, append=len(starts))
        starts, sizes, breaks, first = starts[places], sizes[places], breaks[places], np.searchsorted(places, first)
    bounds = np.append(first, len(starts))
    leaders = _leaders(_fingerprints(text, starts, sizes), bounds)
    if not _same_words(text, starts, sizes, leaders).all():
        return None
    places = np.flatnonzero(leaders == np.arange(len(leaders)))
    spans = zip(starts[places].tolist(), sizes[places].tolist(), strict=True)
    names = [data[start : start + size].decode("utf-8", "surrogatepass") for start, size in spans]
    numbers = np.empty(len(leaders), np.int64)
    numbers[places] = np.arange(len(places))
    return Runs(lengths, breaks, numbers[leaders], bounds, names, np.searchsorted(places, bounds).tolist())


def _alternating_runs(bodies: list[bytes]) -> Runs | None:
    """The runs of texts without counts, of one or two words each; None if any text is another one.

    A guess that is checked. A byte that only one of the words has, once, shows where the runs of this word begin and
    end. The runs are those of the text if they give its bytes again.
    """
    offsets = np.cumsum([0, *map(len, bodies)])
    marks, edges = np.empty((2, max(map(len, bodies))), bool)
    items: list[tuple[bytes, ...]] = []
    parts: list[np.ndarray] = []
    for body, start in zip(bodies, offsets.tolist(), strict=False):
        first = _item(body, 0)
        second = _item(body, _second_word(body, len(first)))
        items.append((first,) if second == first else (first, second))
        found = _mark(second, first) or _mark(first, b"" if second == first else second)
        if found is None or not all(len(item) > 2 and item.endswith(b"| ") for item in items[-1]):
            return None
        byte, shift, size = found
        here, own = marks[: len(body)], edges[: len(body)]
        np.equal(np.frombuffer(body, np.uint8), byte, out=here)
        own[:size] = here[:size]
        np.not_equal(here[size:], here[:-size], out=own[size:])
        own[shift] = True
        parts.append(own.nonzero()[0] + (start - shift))
    places = np.concatenate(parts)
    counts = np.array([len(part) for part in parts])
    bounds = np.append(0, np.cumsum(counts))
    lengths = np.diff(places, append=offsets[-1])
    lengths[bounds[1:] - 1] += 2  # the separator that the last item lacks
    name_bounds = np.cumsum([0, *map(len, items)])
    words = (np.arange(len(places)) - np.repeat(bounds[:-1], counts)) % np.repeat(np.diff(name_bounds), counts)
    words += np.repeat(name_bounds[:-1], counts)
    lengths //= np.array([len(item) for pair in items for item in pair])[words]
    listed = lengths.tolist()
    for body, pair, start, end in zip(bodies, items, bounds.tolist(), bounds[1:].tolist(), strict=False):
        again = b"".join(map(mul, cycle(pair), listed[start:end]))
        if len(again) != len(body) + 2 or not again.startswith(body):
            return None
    if lengths.min() < 1:
        return None
    names = [item[:-2].decode("utf-8", "surrogatepass") for pair in items for item in pair]
    return Runs(lengths, np.zeros(len(lengths), bool), words, bounds, names, name_bounds.tolist())


def _second_word(body: bytes, size: int) -> int:
    """The place of the first item that is not that of `size` bytes with which a text begins; 0 if all are."""
    text = np.frombuffer(body, np.uint8)
    if size == 8:  # as many as `others` and its separator have; each item is compared as one number
        text = text[: len(text) // 8 * 8].view(np.uint64)
    step = size // text.itemsize
    other = text[step:] != text[:-step]
    place = int(other.argmax()) if len(other) else 0
    return (place // step + 1) * size if len(other) and other[place] else 0


def _mark(item: bytes, other: bytes) -> tuple[int, int, int] | None:
    """A byte that an item has once and the other one has not, its place in the item, and the size of the item."""
    byte = next((byte for byte in item[:-2] if byte not in other and item.count(byte) == 1), None)
    return None if byte is None else (byte, item.index(byte), len(item))


def _item(body: bytes, start: int) -> bytes:
    """The word that begins at a place, with the separator after it, or with the one that the last word lacks."""
    end = body.find(b"|", start)
    return body[start : end + 2] if end >= 0 else body[start:] + b"| "


def read_numbers(text: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decimal numbers that begin at the given places.

    Args:
        text: bytes, at least eight more than the last place.
        starts: places.

    Returns:
        The numbers, -1 for none and for a leading zero, and the place after each of them, both int64.
    """
    values, ends = np.zeros(len(starts), np.int64), starts.copy()
    alive = np.ones(len(starts), bool)
    for place in range(_MOST_DIGITS):
        digits = text[starts + place] - ord("0")  # bytes below "0" wrap to large values
        alive &= digits < 10
        if not alive.any():
            break
        values = np.where(alive, values * 10 + digits, values)
        ends += alive
    values[(ends == starts) | (text[starts] == ord("0"))] = -1
    return values, ends


def _windows(text: np.ndarray, starts: np.ndarray, sizes: np.ndarray, place: int) -> np.ndarray:
    """Eight bytes of each word from a place within it on, zeros after its end: (R,) uint64."""
    view = np.ndarray(len(text) - 7, "<u8", text.data, strides=(1,))
    return view[starts + place] & _KEEP[np.minimum(sizes - place, 8)]


def _fingerprints(text: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A number for each word from its length and ends, equal for equal words: (R,) uint64."""
    mix = np.uint64(0x9E3779B97F4A7C15)
    heads, tails = _windows(text, starts, sizes, 0), _windows(text, starts + np.maximum(sizes - 8, 0), sizes, 0)
    return (heads * mix + tails) * mix + sizes.astype(np.uint64)


def _same_words(text: np.ndarray, starts: np.ndarray, sizes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each word is that of the other place: (R,) bool."""
    windows = _windows(text, starts, sizes, 0)
    same = (sizes == sizes[others]) & (windows == windows[others])
    for place in range(8, int(sizes.max()), 8):
        some = np.flatnonzero(sizes > place)
        windows[:] = 0
        windows[some] = _windows(text, starts[some], sizes[some], place)
        same &= windows == windows[others]
    return same


def _leaders(prints: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The first run of the same text with the same fingerprint: (R,) int64."""
    counts = np.diff(bounds)
    leaders = np.repeat(bounds[:-1], counts)
    left = np.flatnonzero(prints != np.repeat(prints[bounds[:-1]], counts))
    texts = leaders[left]  # by their first run
    while len(left):
        heads = np.append(True, texts[1:] != texts[:-1])
        sizes = np.diff(np.flatnonzero(heads), append=len(left))
        first = np.repeat(left[heads], sizes)
        leaders[left] = first
        other = prints[left] != prints[first]
        left, texts = left[other], texts[other]
    return leaders
