"""The token sequence of RAS: one prefix for an image, one suffix for each of its prompts.

    prefix   <s> system USER: [image tokens] [pool-pre, candidate] x N
    suffix   prompt text with [ref-pre, reference] in place  ASSISTANT:  [candidate] x N

The prefix runs once per image and is kept as a key-value cache. Several prompts may follow it in one row (or follow the
prefix itself in the same row). A block mask hides them from each other, so a row gives the same result as separate
sequences.

The paper feeds the candidates a second time and does not mention the attention among them:
    causal       each candidate attends to those before it, the plain reading of the paper
    independent  each candidate attends only to itself, all at one position
    mutual       each candidate attends to all, all at one position

For a language model with two-dimensional positions (M-RoPE, arXiv 2409.12191, section 2.1), image tokens are on a grid:
they share one position id in time, and have one id per row and one per column. The text after them continues after the
longer side. Other tokens have three equal ids, so one number is enough.

Shape letters: B rows, P prompts, L positions, N candidates, R references, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.structures.sample import MASK_REF

SecondPass = Literal["causal", "independent", "mutual"]


class Slot(IntEnum):
    """The kind of a position. The last four are InstructSeg's, see `tokens/instruction_rows.py`."""

    PAD = 0
    TEXT = 1
    IMAGE = 2
    POOL_PRE = 3
    CANDIDATE = 4
    REF_PRE = 5
    REFERENCE = 6
    ANSWER = 7
    TEMPORAL = 8
    INSTRUCTION = 9
    REPLY = 10
    MASK_QUERY = 11


TEXT_SLOTS = (Slot.TEXT, Slot.INSTRUCTION, Slot.REPLY)
"""Kinds whose values are token ids."""

PREFIX = -1
"""Block number of prefix positions; prompts are blocks 0 to P - 1."""


@dataclass(frozen=True)
class Segment:
    """A run of positions.

    Attributes:
        kinds: see `Slot`.
        values: the token id, or the index of the image token, candidate or reference.
        positions: position ids for the language model; for image tokens on a grid, those in time.
        grid: rows and columns of the image tokens; None for one-dimensional positions.
        cells: for each position the number of a place on the image grid, see `place_number`; empty for none.
        ahead: for each position what image tokens predict from that place on, see `windows`, (L, W); None for none.
    """

    kinds: list[int]
    values: list[int]
    positions: list[int]
    grid: tuple[int, int] | None = None
    cells: Sequence[int] = ()
    ahead: Tensor | None = None

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def end(self) -> int:
        """The next position id."""
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
    """The shared part: begin and system text, image tokens, then every candidate after its pre-token.

    Args:
        begin_ids: token ids before the image.
        image_tokens: number of image tokens.
        order: indices of the candidates in reading order.
        pool_pre: whether candidates have a pre-token.
        after_ids: token ids after the candidates.
        image_end_ids: token ids directly after the image tokens.
        grid: rows and columns of the image tokens, for two-dimensional positions.

    Raises:
        ValueError: the grid does not have `image_tokens` cells.
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
    after = before + max(grid)
    rest = len(kinds) - before - image_tokens
    return [*range(before), *[before] * image_tokens, *range(after, after + rest)]


def prompt_segment(
    pieces: list[list[int]], ref_pre: bool, closing_ids: list[int], start: int, first_reference: int = 0
) -> Segment:
    """One prompt: text with references in place, and the closing text.

    Args:
        pieces: R + 1 lists of token ids, see `split_prompt`.
        ref_pre: whether references have a pre-token.
        closing_ids: token ids after the prompt.
        start: position id of the first token (`end` of the prefix).
        first_reference: index of the first reference among all references of the row.
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
    """The candidates again. `independent` and `mutual` give them one position, so their order does not matter."""
    positions = [start + (i if second_pass == "causal" else 0) for i in range(len(order))]
    return Segment([int(Slot.ANSWER)] * len(order), list(order), positions)


def image_segment(order: list[int], start: int) -> Segment:
    """Image tokens after a prompt, all at one position; each attends to all of them."""
    return Segment([int(Slot.IMAGE)] * len(order), order, [start] * len(order))


def place_number(row: int, column: int, grid: tuple[int, int]) -> int:
    """The number of a place on a grid: 0 for none (row -1), else from 1 on, row by row.

    Each row has one place more than it has cells: the one after its last cell (column -1).
    """
    return 0 if row < 0 else row * (grid[1] + 1) + (grid[1] if column < 0 else column) + 1


def windows(coverage: Tensor, length: int) -> Tensor:
    """What follows each place of a grid in its row.

    Args:
        coverage: (P, h, w), a value for each cell.
        length: number W of cells to see, the place itself the first of them.

    Returns:
        (P, 1 + h * (w + 1), W) by `place_number`; 0 behind the end of the row, and everywhere for number 0.
    """
    seen = F.pad(coverage, (0, length)).unfold(2, length, 1)
    return F.pad(seen.flatten(1, 2), (0, 0, 1, 0))


def split_prompt(text: str) -> list[str]:
    """The R + 1 pieces of text around `<mask-ref>`."""
    return [piece.strip() for piece in text.split(MASK_REF)]


@dataclass(frozen=True)
class PackedRows:
    """B rows of equal length L.

    Attributes:
        kinds, values, blocks: (B, L) int64, see `Slot`, `Segment` and `PREFIX`.
        positions: (B, L) int64, or (B, L, 3) for image tokens on grids: time, row and column.
        cells: (B, L) int64, see `Segment`.
        ahead: (B, L, W) float32, see `Segment`; W is 0 without.
    """

    kinds: Tensor
    values: Tensor
    positions: Tensor
    blocks: Tensor
    cells: Tensor
    ahead: Tensor

    def to(self, device: torch.device) -> "PackedRows":
        """The same rows on another device."""
        return PackedRows(*(tensor.to(device) for tensor in vars(self).values()))

    def some(self, rows: list[int]) -> "PackedRows":
        """Some of the rows, cut to the longest of them."""
        length = int((self.kinds[rows] != Slot.PAD).sum(1).max())
        return PackedRows(*(tensor[rows, :length] for tensor in vars(self).values()))


def pack(rows: Sequence[tuple[Segment | None, list[list[Segment]]]]) -> PackedRows:
    """Pack rows of a prefix (or None) and P prompts, each a list of segments, with padding on the right."""
    lengths = [len(prefix or ()) + sum(len(s) for parts in prompts for s in parts) for prefix, prompts in rows]
    shape = (len(rows), max(lengths))
    kinds, values, positions, cells = (torch.zeros(shape, dtype=torch.long) for _ in range(4))
    seen = max((s.ahead.shape[1] for _, prompts in rows for p in prompts for s in p if s.ahead is not None), default=0)
    ahead = torch.zeros(*shape, seen, dtype=torch.float32)
    blocks = torch.full(shape, PREFIX, dtype=torch.int64)
    for row, (prefix, prompts) in enumerate(rows):
        segments = [(PREFIX, prefix)] if prefix else []
        segments += [(block, s) for block, parts in enumerate(prompts) for s in parts]
        length = lengths[row]
        kinds[row, :length] = torch.tensor([k for _, s in segments for k in s.kinds], dtype=torch.int64)
        values[row, :length] = torch.tensor([v for _, s in segments for v in s.values], dtype=torch.int64)
        positions[row, :length] = torch.tensor([p for _, s in segments for p in s.positions], dtype=torch.int64)
        blocks[row, :length] = torch.tensor([b for b, s in segments for _ in range(len(s))], dtype=torch.int64)
        if any(s.cells for _, s in segments):
            own = [c for _, s in segments for c in s.cells or [0] * len(s)]
            cells[row, :length] = torch.tensor(own, dtype=torch.int64)
        start = 0
        for _, segment in segments:
            if segment.ahead is not None:
                ahead[row, start : start + len(segment)] = segment.ahead
            start += len(segment)
    grids = [prefix.grid if prefix else None for prefix, _ in rows]
    if any(grids):
        positions = _on_grids(positions, kinds, values, grids)
    return PackedRows(kinds, values, positions, blocks, cells, ahead)


def _on_grids(positions: Tensor, kinds: Tensor, values: Tensor, grids: Sequence[tuple[int, int] | None]) -> Tensor:
    """Positions (B, L) to (B, L, 3), with the row and column of image tokens on their grid added."""
    out = positions[..., None].repeat(1, 1, 3)
    for row, grid in enumerate(grids):
        if grid is not None:
            image = kinds[row] == Slot.IMAGE
            out[row, image, 1] += values[row, image] // grid[1]
            out[row, image, 2] += values[row, image] % grid[1]
    return out


def visibility(rows: PackedRows, second_pass: SecondPass) -> Tensor:
    """Attention mask (B, 1, L, L) bool, True where a query attends to a key.

    Image tokens of a prefix are causal; those after a prompt (`image_segment`) attend to each other both ways.
    Padding attends only to itself, so that no row of the softmax is empty.
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
    after_prompt = (rows.kinds == Slot.IMAGE) & (rows.blocks != PREFIX)
    within = within | (after_prompt[:, :, None] & after_prompt[:, None, :])
    seen = ((key_block == PREFIX) & earlier) | ((key_block == query_block) & within)
    seen = seen & real[:, None, :] & real[:, :, None]
    seen |= torch.eye(length, dtype=torch.bool, device=order.device) & ~real[:, :, None]
    return seen[:, None]


def is_text(kinds: Tensor) -> Tensor:
    """Positions whose values are token ids: int64 of any shape to bool."""
    return torch.isin(kinds, torch.tensor(TEXT_SLOTS, dtype=kinds.dtype, device=kinds.device))


def is_instruction(kinds: Tensor) -> Tensor:
    """Positions of an instruction of InstructSeg, references within it included: int64 of any shape to bool."""
    return (kinds == Slot.INSTRUCTION) | (kinds == Slot.REFERENCE)


def gather(states: Tensor, rows: PackedRows, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The states at chosen positions of every prompt, padded with zeros.

    Args:
        states: (B, L, D).
        rows: the positions.
        chosen: (B, L) bool. Each prompt, or row without prompts, needs at least one.

    Returns:
        (G, M, D) and (G, M) bool, True where a state is; G prompts of all rows in order, M states at most.
    """
    row, column = torch.nonzero(chosen, as_tuple=True)
    block = rows.blocks[row, column]
    key = row * (int(rows.blocks.max()) - PREFIX + 1) + block - PREFIX
    _, group, counts = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    place = torch.arange(len(row), dtype=torch.int64, device=row.device) - (counts.cumsum(0) - counts)[group]
    shape = (len(counts), int(counts.max()) if len(counts) else 0)
    out = states.new_zeros(*shape, states.shape[-1]).index_put((group, place), states[row, column])
    return out, torch.arange(shape[1], dtype=torch.int64, device=row.device) < counts[:, None]


def scatter(embeddings: Tensor, rows: PackedRows, slot: Slot, tokens: Tensor, owners: Tensor) -> Tensor:
    """Put tokens at every position of one kind.

    Args:
        embeddings: (B, L, D).
        rows: the positions; a value is the index of a token in its set.
        slot: the kind.
        tokens: (O, M, D), O sets of M tokens.
        owners: (B,) int64, the set of each row.

    Raises:
        ValueError: a value exceeds the number of tokens.
    """
    row, column = torch.nonzero(rows.kinds == slot, as_tuple=True)
    if len(row) == 0:
        return embeddings
    indices = rows.values[row, column]
    if int(indices.max()) >= tokens.shape[1]:
        raise ValueError(
            f"the sequence has placeholders for {int(indices.max()) + 1} {slot.name.lower()} tokens a row, "
            f"but {tokens.shape[1]} were given"
        )
    return embeddings.index_put((row, column), tokens[owners[row], indices].to(embeddings.dtype))
