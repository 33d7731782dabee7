"""The base of scorers, and the scorer of RAS: all candidates in one pass.

Other scorers are in `systems/autoregressive_scorer.py` and `systems/decoder_scorer.py`.

Shape letters: B images, P prompts, N candidates, L positions, D width.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.heads.binary import BinaryHead
from maskselect.losses.selection import selection_loss
from maskselect.structures.protocols import LanguageModel
from maskselect.structures.sample import MASK_REF, Batch
from maskselect.systems.reading import Reader, Tokens
from maskselect.tokens import sequence
from maskselect.tokens.sequence import PackedRows, SecondPass, Segment, Slot

PROMPTS_PER_PASS = 16
"""Maximum number of prompts in one forward pass after a cached prefix; it bounds memory."""


@dataclass
class ReadImages:
    """The reading of B images.

    Attributes:
        tokens: embeddings of images and masks.
        prefixes: the prefix of each image.
        orders: for each image its candidate numbers in the order of the prefix.
        rows: the packed prefixes.
        cache: keys and values of the prefixes; None if prefixes and prompts run together, because gradient
            checkpointing excludes caches.
    """

    tokens: Tokens
    prefixes: list[Segment]
    orders: list[list[int]]
    rows: PackedRows
    cache: Any


def in_passes(
    image: ReadImages, prompts: list[str], references: Tensor, most: int = PROMPTS_PER_PASS
) -> Iterator[tuple[list[str], ReadImages]]:
    """Split prompts of one image into forward passes of at most `most` prompts; see `Scorer.answer`.

    Yields:
        The prompts of a pass, and the image with their references.
    """
    first = 0
    for start in range(0, len(prompts), most):
        some = prompts[start : start + most]
        used = sum(text.count(MASK_REF) for text in some)
        yield some, replace(image, tokens=replace(image.tokens, references=references[None, first : first + used]))
        first += used


def candidate_orders(valid: Tensor, shuffle: bool) -> list[list[int]]:
    """For each row its candidate numbers; `shuffle` prevents that training learns their order."""
    orders = []
    for row in valid:
        numbers = row.nonzero()[:, 0]
        if shuffle:
            numbers = numbers[torch.randperm(len(numbers), device=numbers.device)]
        orders.append(numbers.tolist())
    return orders


def read_images(reader: Reader, batch: Batch, shuffle: bool = False) -> ReadImages:
    """Embed a batch and run its prefixes once, unless the language model uses gradient checkpointing."""
    images = lay_out_images(reader, batch, candidate_orders(batch.candidate_valid, shuffle))
    if not (reader.lmm.gradient_checkpointing and torch.is_grad_enabled()):
        images.cache = reader.lmm.new_cache()
        # Right padding needs no mask: with causal attention no real position attends to it.
        reader.lmm.hidden(reader.embed(images.rows, images.tokens), None, images.rows.positions, images.cache)
    return images


def lay_out_images(reader: Reader, batch: Batch, orders: list[list[int]]) -> ReadImages:
    """Images that are embedded but not run. orders: for each image the candidate numbers of its prefix."""
    tokens = reader.tokens(batch)
    prefixes = reader.prefixes(tokens, orders)
    rows = sequence.pack([(prefix, []) for prefix in prefixes]).to(tokens.candidates.device)
    return ReadImages(tokens, prefixes, orders, rows, None)


def lay_out_prompts(reader: Reader, prompts: list[str], start: int) -> list[Segment]:
    """Segments of the prompts of one image; their references are numbered consecutively."""
    segments, first = [], 0
    for text in prompts:
        segments.append(reader.prompt(text, start, first))
        first += text.count(MASK_REF)
    return segments


def prompt_hidden(
    reader: Reader,
    images: ReadImages,
    parts: list[list[list[Segment]]],
    second_pass: SecondPass,
    run: Callable[..., Tensor] | None = None,
) -> tuple[PackedRows, Tensor]:
    """Run prompts after their images: one row for each prompt, or without a cache one for each image.

    Args:
        reader, images, second_pass: see `behind_cache`.
        parts: for each image and prompt its segments.
        run: replaces `lmm.hidden`.

    Returns:
        The rows and their hidden states (rows, L, D). With a cache the rows have no prefix.
    """
    device, run = images.tokens.candidates.device, run or reader.lmm.hidden
    if images.cache is None:
        packed = sequence.pack(list(zip(images.prefixes, parts, strict=True))).to(device)
        visible = sequence.visibility(packed, second_pass)
        return packed, run(reader.embed(packed, images.tokens), visible, packed.positions, None)
    owners = torch.tensor(
        [image for image, prompts in enumerate(parts) for _ in prompts], dtype=torch.int64, device=device
    )
    packed = sequence.pack([(None, [prompt]) for prompts in parts for prompt in prompts]).to(device)
    groups = like_lengths([sum(map(len, prompt)) for prompts in parts for prompt in prompts])
    states = [run(*behind_cache(reader, images, packed.some(rows), owners[rows], second_pass)) for rows in groups]
    length = packed.kinds.shape[1]
    return packed, ungrouped(groups, [F.pad(part, (0, 0, 0, length - part.shape[1])) for part in states])


def ungrouped(groups: list[list[int]], parts: list[Tensor]) -> Tensor:
    """Concatenate the rows of all groups in their original order."""
    rows = torch.tensor([row for group in groups for row in group], dtype=torch.int64)
    return torch.cat(parts)[rows.argsort().to(parts[0].device)]


def behind_cache(
    reader: Reader, images: ReadImages, packed: PackedRows, owners: Tensor, second_pass: SecondPass
) -> tuple[Tensor, Tensor, Tensor, Any]:
    """The arguments of `lmm.hidden` for rows after cached images.

    Args:
        reader, images: the images that were read.
        packed: the rows.
        owners: the image of each row, (rows,) int64.
        second_pass: see `tokens/sequence.py`.

    Returns:
        Embeddings, visibility, positions and a new cache.
    """
    assert images.cache is not None
    cache = repeated_cache(reader, images.cache, owners)
    before = (images.rows.kinds != Slot.PAD)[owners][:, None, None].expand(-1, -1, packed.kinds.shape[1], -1)
    visible = torch.cat([before, sequence.visibility(packed, second_pass)], -1)
    return reader.embed(packed, images.tokens, owners), visible, packed.positions, cache


def like_lengths(lengths: list[int], fewest: int = 24, growth: float = 1.25) -> list[list[int]]:
    """Group rows by length, shortest first: less padding for a few more passes.

    Args:
        lengths: of all rows.
        fewest: minimum number of rows in a group, if there are as many.
        growth: a row longer than the shortest of its group by this factor begins a new group.

    Returns:
        The row numbers of each group.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    groups: list[list[int]] = [[]]
    for place, row in enumerate(order):
        enough = len(groups[-1]) >= fewest and len(order) - place >= fewest
        if enough and lengths[row] >= growth * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return groups


def repeated_cache(reader: Reader, cache: Any, owners: Tensor) -> Any:
    """A cache with a row for each prompt; gradients flow back to the row of its image."""
    out = reader.lmm.new_cache()
    for number, layer in enumerate(cache.layers):
        out.update(layer.keys[owners], layer.values[owners], number)
    return out


def prompt_mask(prompts: list[list[str]]) -> Tensor:
    """Which prompts exist, (B, P) bool: some images have fewer than others."""
    counts = torch.tensor([len(texts) for texts in prompts], dtype=torch.int64)
    return torch.arange(int(counts.max())) < counts[:, None]


class Scorer(nn.Module):
    """Scores candidates of images that a `Reader` embeds.

    By default the language model reads the candidates after the image, and trains.

    Attributes:
        trains_language_model: whether the language model trains; otherwise it is frozen.
        runs_every_part: whether the loss of every batch runs all trained modules, once each.
    """

    trains_language_model = True
    runs_every_part = False

    @property
    def uses_threshold(self) -> bool:
        """Whether the selection threshold decides the group."""
        return True

    @property
    def blocks(self) -> list[nn.Module]:
        """Modules of the scorer that may be sharded one by one."""
        return []

    def begins_with(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether a checkpoint of `RAS` with these tensors lacks this scorer, so that training starts from it."""
        return not any(name.startswith("scorer.") for name in tensors)

    def begin(self, lmm: LanguageModel) -> None:
        """Initialise from a loaded language model for such a training."""

    def read(self, reader: Reader, batch: Batch) -> ReadImages:
        """Read images and candidates once for all prompts."""
        return read_images(reader, batch)

    def labels(self, batch: Batch) -> Tensor | None:
        """Training targets (B, P, N) float: 1 in the group, 0 not, -1 ignored; None if the batch has none."""
        return batch.labels

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Training losses by name, "loss" among them. Raises ValueError for a batch without labels."""
        raise NotImplementedError

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """Logits of every candidate for every prompt, (B, P, N); -1e4 on padding."""
        raise NotImplementedError

    def answer(
        self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Score the candidates of one image.

        Args:
            reader: embeds the prompts.
            image: result of `read` for one image.
            prompts: P texts.
            references: mask tokens of the references of all prompts, in order, (R, D).
            threshold: selection threshold.

        Returns:
            Probabilities (P, N) in [0, 1] and groups (P, N) bool, on the CPU.
        """
        raise NotImplementedError


class ParallelScorer(Scorer):
    """Scores all candidates at once by a binary head on the second-pass hidden states (RAS, section 3.3).

    Args:
        width: D of the language model.
        second_pass: visibility among candidates in the second pass, see `tokens/sequence.py`.
        positive_weight: weight of positives in the binary cross entropy (5 in the paper).
    """

    runs_every_part = True

    def __init__(self, width: int, second_pass: SecondPass = "mutual", positive_weight: float = 5.0) -> None:
        super().__init__()
        self.head = BinaryHead(width)
        self.second_pass = second_pass
        self.positive_weight = positive_weight

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Binary cross entropy over candidates and prompts. Raises ValueError without labels."""
        if batch.labels is None:
            raise ValueError("a training batch needs labels")
        logits, exists = self.logits(reader, batch), prompt_mask(batch.prompts).to(batch.labels.device)
        valid = (batch.candidate_valid[:, None] & (batch.labels >= 0))[exists]
        return {"loss": selection_loss(logits[exists], batch.labels[exists], valid, self.positive_weight)}

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """Logits (B, P, N); -1e4 on padding."""
        images = read_images(reader, batch, shuffle=self.training)
        return self._logits(reader, images, batch.prompts)

    def _logits(self, reader: Reader, images: ReadImages, prompts: list[list[str]]) -> Tensor:
        parts = []
        for prefix, order, texts in zip(images.prefixes, images.orders, prompts, strict=True):
            segments = lay_out_prompts(reader, texts, prefix.end)
            parts.append([[s, sequence.answer_segment(order, s.end, self.second_pass)] for s in segments])
        packed, hidden = prompt_hidden(reader, images, parts, self.second_pass)
        row, column = torch.nonzero(packed.kinds == Slot.ANSWER, as_tuple=True)
        logits = self.head(hidden[row, column]).float()
        shape = (len(prompts), max(len(p) for p in prompts), images.tokens.candidates.shape[1])
        if images.cache is None:  # one row per image
            image, prompt = row, packed.blocks[row, column]
        else:
            places = [(i, p) for i, texts in enumerate(prompts) for p in range(len(texts))]
            image, prompt = torch.tensor(places, dtype=torch.int64, device=row.device)[row].T
        out = torch.full(shape, -1e4, dtype=torch.float32, device=logits.device)
        return out.index_put((image, prompt, packed.values[row, column]), logits)

    def answer(
        self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Probabilities (P, N), and which of them reach the threshold."""
        passes = in_passes(image, prompts, references)
        scores = torch.cat([self._logits(reader, held, [some])[0].sigmoid().cpu() for some, held in passes])
        return scores, scores >= threshold
