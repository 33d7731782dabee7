"""The token sequence of RAS: one prefix for an image, one suffix for each of its prompts.

    prefix   <s> system USER: [image tokens] [pool-pre, candidate] x N
    suffix   prompt text with [ref-pre, reference] in place  ASSISTANT:  [candidate] x N

The prefix is run once for an image and kept as a key-value cache. Several prompts may stand in one row behind it (or
behind the prefix itself, in the same row); a block mask hides them from each other, so a row gives exactly what
separate sequences would give.

How candidates of the second pass see each other is not stated in the paper:
    causal       each sees those before it
    independent  each sees only itself, all at one position
    mutual       each sees all, all at one position

Where a language model has positions in two dimensions (M-RoPE, arXiv 2409.12191, section 2.1), image tokens stand on a
grid: all at one position id in time, at one for each row and one for each column; text behind them goes on behind the
longer side. Everything else has the same id three times, so one number tells it.

Shape letters: B rows, P prompts, L positions, N candidates, R references, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import torch
from torch import Tensor

from maskselect.structures.sample import MASK_REF

SecondPass = Literal["causal", "independent", "mutual"]


class Slot(IntEnum):
    """What stands at a position."""

    PAD = 0
    TEXT = 1
    IMAGE = 2
    POOL_PRE = 3
    CANDIDATE = 4
    REF_PRE = 5
    REFERENCE = 6
    ANSWER = 7


PREFIX = -1
"""Block number of prefix positions; prompts are blocks 0 to P - 1."""


@dataclass(frozen=True)
class Segment:
    """A run of positions: what stands there, and which token, image token, candidate or reference it is.

    kinds, values, positions: lists of equal length; `positions` are the language model's position ids.
    grid: rows and columns of the image tokens, whose `positions` are then those in time; None for a plain sequence.
    """

    kinds: list[int]
    values: list[int]
    positions: list[int]
    grid: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def end(self) -> int:
        """Position id right behind it."""
        ends_in_image = self.grid is not None and self.kinds[-1] == Slot.IMAGE
        return self.positions[-1] + (max(self.grid or ()) if ends_in_image else 1)


def prefix_segment(
    begin_ids: list[int],
    image_tokens: int,
    order: list[int],
    pool_pre: bool,
    after_ids: list[int],
    image_end_ids: Sequence[int] = (),
    grid: tuple[int, int] | None = None,
) -> Segment:
    """The shared part: begin and system text, image tokens, then every candidate behind its pre-token.

    order: candidate numbers in the order in which they are read.
    image_end_ids: text right behind the image tokens.
    grid: rows and columns of the image tokens, for a language model with positions in two dimensions.

    Raises ValueError when the grid has another number of places than there are image tokens.
    """
    if grid is not None and grid[0] * grid[1] != image_tokens:
        raise ValueError(f"{image_tokens} image tokens cannot stand on a grid of {grid[0]} x {grid[1]}")
    kinds = [Slot.TEXT] * len(begin_ids) + [Slot.IMAGE] * image_tokens + [Slot.TEXT] * len(image_end_ids)
    values = [*begin_ids, *range(image_tokens), *image_end_ids]
    for number in order:
        if pool_pre:
            kinds.append(Slot.POOL_PRE)
            values.append(0)
        kinds.append(Slot.CANDIDATE)
        values.append(number)
    kinds += [Slot.TEXT] * len(after_ids)
    values += after_ids
    return Segment([int(k) for k in kinds], values, _prefix_positions(len(begin_ids), image_tokens, grid, kinds), grid)


def _prefix_positions(before: int, image_tokens: int, grid: tuple[int, int] | None, kinds: list[Slot]) -> list[int]:
    if grid is None:
        return list(range(len(kinds)))
    behind = before + max(grid)
    rest = len(kinds) - before - image_tokens
    return [*range(before), *[before] * image_tokens, *range(behind, behind + rest)]


def prompt_segment(
    pieces: list[list[int]], ref_pre: bool, closing_ids: list[int], start: int, first_reference: int = 0
) -> Segment:
    """One prompt: token ids of the text between references, the references in place, and the closing text.

    pieces: R + 1 lists of token ids, see `split_prompt`.
    start: position id of its first token (the prefix's `end`).
    first_reference: number of the prompt's first reference among all references of the row.
    """
    kinds: list[int] = []
    values: list[int] = []
    for number, piece in enumerate(pieces):
        if number > 0:
            if ref_pre:
                kinds.append(Slot.REF_PRE)
                values.append(0)
            kinds.append(Slot.REFERENCE)
            values.append(first_reference + number - 1)
        kinds += [Slot.TEXT] * len(piece)
        values += piece
    kinds += [Slot.TEXT] * len(closing_ids)
    values += closing_ids
    return Segment([int(k) for k in kinds], values, list(range(start, start + len(kinds))))


def answer_segment(order: list[int], start: int, second_pass: SecondPass) -> Segment:
    """The candidates again. `independent` and `mutual` place them all at one position, so their order cannot matter."""
    positions = [start + (i if second_pass == "causal" else 0) for i in range(len(order))]
    return Segment([int(Slot.ANSWER)] * len(order), list(order), positions)


def split_prompt(text: str) -> list[str]:
    """The R + 1 pieces of text around `<mask-ref>`."""
    return [piece.strip() for piece in text.split(MASK_REF)]


@dataclass(frozen=True)
class PackedRows:
    """B rows of equal length L.

    kinds, values, positions, blocks: (B, L) int64, see `Slot`, `Segment` and `PREFIX`.
    positions are (B, L, 3) where image tokens stand on grids: in time, rows and columns.
    """

    kinds: Tensor
    values: Tensor
    positions: Tensor
    blocks: Tensor

    def to(self, device: torch.device) -> "PackedRows":
        """The same rows on another device."""
        return PackedRows(*(t.to(device) for t in (self.kinds, self.values, self.positions, self.blocks)))

    def some(self, rows: list[int]) -> "PackedRows":
        """Some of the rows, as long as the longest of them."""
        length = int((self.kinds[rows] != Slot.PAD).sum(1).max())
        return PackedRows(*(t[rows, :length] for t in (self.kinds, self.values, self.positions, self.blocks)))


def pack(rows: Sequence[tuple[Segment | None, list[list[Segment]]]]) -> PackedRows:
    """Rows of one prefix (or none) and P prompts, each a list of segments, padded on the right to one length."""
    lengths = [len(prefix or ()) + sum(len(s) for parts in prompts for s in parts) for prefix, prompts in rows]
    shape = (len(rows), max(lengths))
    kinds, values, positions = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    blocks = torch.full(shape, PREFIX, dtype=torch.int64)
    for row, (prefix, prompts) in enumerate(rows):
        segments = [(PREFIX, prefix)] if prefix else []
        segments += [(block, s) for block, parts in enumerate(prompts) for s in parts]
        length = lengths[row]
        kinds[row, :length] = torch.tensor([k for _, s in segments for k in s.kinds], dtype=torch.int64)
        values[row, :length] = torch.tensor([v for _, s in segments for v in s.values], dtype=torch.int64)
        positions[row, :length] = torch.tensor([p for _, s in segments for p in s.positions], dtype=torch.int64)
        blocks[row, :length] = torch.tensor([b for b, s in segments for _ in range(len(s))], dtype=torch.int64)
    grids = [prefix.grid if prefix else None for prefix, _ in rows]
    if any(grids):
        positions = _on_grids(positions, kinds, values, grids)
    return PackedRows(kinds, values, positions, blocks)


def _on_grids(positions: Tensor, kinds: Tensor, values: Tensor, grids: Sequence[tuple[int, int] | None]) -> Tensor:
    """(B, L) to (B, L, 3): image tokens are as many rows down and columns across as their numbers on the grid say."""
    out = positions[..., None].repeat(1, 1, 3)
    for row, grid in enumerate(grids):
        if grid is not None:
            image = kinds[row] == Slot.IMAGE
            out[row, image, 1] += values[row, image] // grid[1]
            out[row, image, 2] += values[row, image] % grid[1]
    return out


def visibility(rows: PackedRows, second_pass: SecondPass) -> Tensor:
    """Which key each query may look at: (B, 1, L, L) bool, True where it may.

    Padding sees itself only, so no row of the softmax is empty, and nothing sees padding.
    """
    length = rows.kinds.shape[1]
    order = torch.arange(length, device=rows.kinds.device)
    earlier = order[None, :] <= order[:, None]
    query_block, key_block = rows.blocks[:, :, None], rows.blocks[:, None, :]
    real = rows.kinds != Slot.PAD
    answers = rows.kinds == Slot.ANSWER
    both_answers = answers[:, :, None] & answers[:, None, :]
    if second_pass == "independent":
        within = torch.where(both_answers, torch.eye(length, dtype=torch.bool, device=order.device), earlier)
    elif second_pass == "mutual":
        within = both_answers | earlier
    else:
        within = earlier.expand_as(both_answers)
    seen = ((key_block == PREFIX) & earlier) | ((key_block == query_block) & within)
    seen = seen & real[:, None, :] & real[:, :, None]
    seen |= torch.eye(length, dtype=torch.bool, device=order.device) & ~real[:, :, None]
    return seen[:, None]


def scatter(embeddings: Tensor, rows: PackedRows, slot: Slot, tokens: Tensor, owners: Tensor) -> Tensor:
    """Put tokens at every position of one kind: (B, L, D) and (O, M, D) to (B, L, D).

    owners: (B,) int64, which of the O token sets belongs to each row. The value at a position says which of the M
    tokens of its set stands there.

    Raises ValueError when a position asks for a token that its set does not have.
    """
    row, column = torch.nonzero(rows.kinds == slot, as_tuple=True)
    if len(row) == 0:
        return embeddings
    wanted = rows.values[row, column]
    if int(wanted.max()) >= tokens.shape[1]:
        raise ValueError(
            f"the sequence has placeholders for {int(wanted.max()) + 1} {slot.name.lower()} tokens a row, "
            f"but {tokens.shape[1]} were given"
        )
    return embeddings.index_put((row, column), tokens[owners[row], wanted].to(embeddings.dtype))
