"""Automata of the texts that the codecs write, for constrained decoding. Symbols are pieces of text, not token ids.

Shape letters: S symbols, h w cells.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from maskselect.structures.codec import Grammar


class _Automaton:
    """Symbols in groups: `spans` gives the range of each group."""

    def __init__(self, groups: Mapping[str, Iterable[str]]) -> None:
        self.spans: dict[str, slice] = {}
        self.symbols: tuple[str, ...] = ()
        for name, symbols in groups.items():
            start = len(self.symbols)
            self.symbols += tuple(symbols)
            self.spans[name] = slice(start, len(self.symbols))

    def _mask(self, group: str, first: int = 0, end: int | None = None) -> np.ndarray:
        """Symbols first to end of a group, as (S,) bool."""
        mask = np.zeros(len(self.symbols), bool)
        mask[self.spans[group]][first:end] = True
        return mask

    def _place(self, symbol: int, group: str) -> int:
        return symbol - self.spans[group].start

    def allowed(self, state: Any) -> np.ndarray:
        """See `Grammar`."""
        raise NotImplementedError

    def _check(self, state: Any, symbol: int) -> None:
        if not 0 <= symbol < len(self.symbols) or not self.allowed(state)[symbol]:
            raise ValueError(f"symbol {symbol} is not allowed in state {state}")


class DescriptorState(NamedTuple):
    """phase: what was written last.  row, column: the next cell.  last: previous label in the run's line, or -1."""

    phase: Literal["start", "between", "label", "item", "end", "tail", "closed"]
    row: int = 0
    column: int = 0
    last: int = -1


class DescriptorGrammar(_Automaton):
    """Image-wise descriptors. Runs are maximal: neighbouring runs of a line have different labels.

    Args:
        shape: rows and columns.
        layout: as in `DescriptorCodec`.
        labels: with `others` first.
    """

    start = DescriptorState("start")

    def __init__(self, shape: tuple[int, int], layout: Literal["full", "image", "row"], labels: Sequence[str]) -> None:
        self.layout, self.labels = layout, labels
        # A line is what a run may not leave.
        self.lines, self.width = shape if layout == "row" else (1, shape[0] * shape[1])
        lengths = () if layout == "full" else (f" *{length}" for length in range(1, self.width + 1))
        rows = ("\n ",) if layout == "row" and self.lines > 1 else ()
        groups = {"open": ("<seg>",), "label": labels, "length": lengths, "next": ("| ",), "row": rows}
        super().__init__(groups | {"end": ("\n",), "close": ("</seg>",)})

    def allowed(self, state: DescriptorState) -> np.ndarray:
        """See `Grammar`."""
        left = self.width - state.column
        if state.phase == "start":
            return self._mask("open")
        if state.phase == "between":
            mask = self._mask("label")
            if state.last >= 0 and self.layout != "full":
                mask[self.spans["label"].start + state.last] = False
            return mask
        if state.phase == "label":
            # With one label there is no other run that could fill the rest.
            return self._mask("length", left - 1 if len(self.labels) == 1 else 0, left)
        if state.phase == "item":
            return self._mask("next")
        if state.phase == "end":
            return self._mask("row" if state.row + 1 < self.lines else "end")
        if state.phase == "tail":
            return self._mask("close")
        return np.zeros(len(self.symbols), bool)

    def advance(self, state: DescriptorState, symbol: int) -> DescriptorState:
        """See `Grammar`."""
        self._check(state, symbol)
        phase, row, column, last = state
        if phase == "start":
            return DescriptorState("between")
        if phase == "between":
            state = DescriptorState("label", row, column, self._place(symbol, "label"))
            return state if self.layout != "full" else self._filled(state, 1)
        if phase == "label":
            return self._filled(state, self._place(symbol, "length") + 1)
        if phase == "item":
            return DescriptorState("between", row, column, last)
        if phase == "end" and row + 1 < self.lines:
            return DescriptorState("between", row + 1)
        return DescriptorState("tail" if phase == "end" else "closed", row)

    def _filled(self, state: DescriptorState, length: int) -> DescriptorState:
        column = state.column + length
        if column == self.width:
            return DescriptorState("end", state.row, column)
        return DescriptorState("item", state.row, column, state.last)

    def complete(self, state: DescriptorState) -> bool:
        """See `Grammar`."""
        return state.phase == "closed"


class BoxwiseState(NamedTuple):
    """phase: the part that comes next.  group: number of groups before this one.  box: the corners written so far.

    cell: number of cells filled.  last: colour (1 for fg) that may not come next, or -1.  any_fg: whether the instance
    has a foreground cell.
    """

    phase: int = 0
    group: int = 0
    box: tuple[int, ...] = ()
    cell: int = 0
    last: int = -1
    any_fg: bool = False


class BoxwiseGrammar(_Automaton):
    """Boxes with bricks. Runs are maximal, rows fill the box, and every instance has foreground.

    Boxes need not be tight: `encode` writes tight boxes, and the text of a loose one decodes without repairs.

    Args:
        labels: of any instance; None for `roi0`, `roi1`, … in order.
        bins: largest coordinate + 1.
        inclusive: whether the second corner is the last cell, or the one after it.
        rows: whether each row of the box is a line.
        bricks: names of `fg1`, `fg2`, …, and of `bg1`, `bg2`, …
        separator: between groups, may be empty.
        most: most instances.
    """

    start = BoxwiseState()

    def __init__(
        self,
        labels: Sequence[str] | None,
        bins: int,
        inclusive: bool,
        rows: bool,
        bricks: tuple[Sequence[str], Sequence[str]],
        separator: str,
        most: int,
    ) -> None:
        self.numbered = labels is None
        self.bins, self.inclusive, self.rows, self.most = bins, int(inclusive), rows, most
        self.longest = len(bricks[0])
        self.between = {"": "", "\n": "line", " ": "space"}.get(separator, "separator")
        groups: dict[str, Iterable[str]] = {"ref": ("<ref>",)}
        groups["label"] = labels if labels is not None else [f"roi{number}" for number in range(most)]
        groups |= {"ref end": ("</ref>",), "box": ("<box>",), "open": ("[[",), "number": map(str, range(bins))}
        groups |= {"space": (" ",), "close": ("]]",), "box end": ("</box>",), "seg": ("<seg>",)}
        groups |= {"fg": bricks[0], "bg": bricks[1], "line": ("\n",), "end": ("</seg>",)}
        super().__init__(groups | ({"separator": (separator,)} if self.between == "separator" else {}))
        corners = ("number", "space", "number", "space", "number", "space", "number")
        self._order = ("ref", "label", "ref end", "box", "open", *corners, "close", "box end", "seg")

    def _extent(self, state: BoxwiseState) -> tuple[int, int]:
        """Length of a line and number of lines."""
        x1, y1, x2, y2 = state.box
        width, height = x2 - x1 + self.inclusive, y2 - y1 + self.inclusive
        return (width, height) if self.rows else (width * height, 1)

    def allowed(self, state: BoxwiseState) -> np.ndarray:
        """See `Grammar`."""
        phase = state.phase
        if phase == 0:
            if state.group >= self.most:
                return np.zeros(len(self.symbols), bool)
            return self._mask(self.between if state.group and self.between and state.cell == 0 else "ref")
        if phase == 1 and self.numbered:
            return self._mask("label", state.group, state.group + 1)
        if phase < len(self._order) and self._order[phase] == "number":
            done = len(state.box)
            least = 0 if done < 2 else state.box[done - 2] + 1 - self.inclusive
            return self._mask("number", least, self.bins - (1 - self.inclusive) * (done < 2))
        if phase < len(self._order):
            return self._mask(self._order[phase])
        width, height = self._extent(state)
        line, column = divmod(state.cell, width)
        if column == 0 and state.cell and state.last != -2:
            return self._mask("line" if line < height else "end")
        left = width - column
        foreground = self._mask("fg", 0, left if state.last != 1 else 0)
        if state.last == 0:
            return foreground
        # An instance needs foreground: background may not fill the last line of an empty one.
        needed = line == height - 1 and not state.any_fg
        return foreground | self._mask("bg", 0, left - needed)

    def advance(self, state: BoxwiseState, symbol: int) -> BoxwiseState:
        """See `Grammar`."""
        self._check(state, symbol)
        phase, group, box, cell, _, any_fg = state
        if phase == 0:
            return BoxwiseState(1, group) if symbol == self.spans["ref"].start else BoxwiseState(0, group, cell=-1)
        if phase < len(self._order):
            new = (self._place(symbol, "number"),) if self._order[phase] == "number" else ()
            return BoxwiseState(phase + 1, group, box + new, last=-2 if phase + 1 == len(self._order) else -1)
        if symbol == self.spans["end"].start:
            return BoxwiseState(0, group + 1)
        if symbol == self.spans["line"].start:
            return BoxwiseState(phase, group, box, cell, -2, any_fg)
        colour = int(symbol < self.spans["bg"].start)
        length = self._place(symbol, "fg" if colour else "bg") + 1
        last = -1 if length == self.longest else colour
        return BoxwiseState(phase, group, box, cell + length, last, any_fg or bool(colour))

    def complete(self, state: BoxwiseState) -> bool:
        """See `Grammar`."""
        return state.phase == 0 and state.cell == 0


def read_symbols(grammar: Grammar, text: str) -> list[int] | None:
    """The symbols of a complete text, the longest allowed one at each place; None if the automaton forbids the text."""
    state, place, found = grammar.start, 0, []
    while place < len(text):
        some = [n for n in np.flatnonzero(grammar.allowed(state)) if text.startswith(grammar.symbols[n], place)]
        if not some:
            return None
        best = int(max(some, key=lambda number: len(grammar.symbols[number])))
        state, place = grammar.advance(state, best), place + len(grammar.symbols[best])
        found.append(best)
    return found if grammar.complete(state) else None
