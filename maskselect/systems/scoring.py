"""What scores candidates once image and prompt have been read: all in one pass, as RAS does.

Other ways are `systems/autoregressive_scorer.py` and `systems/decoder_scorer.py`. All answer the calls of `Scorer`, so
`systems/ras.py` does not ask which one it holds.

Shape letters: B images, P prompts, N candidates, L positions, D width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

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
"""Prompts that share one forward pass behind a cached prefix; bounds memory for callers with many."""


@dataclass
class ReadImages:
    """B images, read: their tokens, their prefixes and the prefixes' keys and values.

    orders: for each image its candidate numbers as they stand in the prefix.
    cache: of `lmm.new_cache`; None when the prefix is to be run again together with the prompts (gradient checkpointing
        forbids caches).
    """

    tokens: Tokens
    prefixes: list[Segment]
    orders: list[list[int]]
    rows: PackedRows
    cache: Any


class Scorer(Protocol):
    """Scores candidates of images that a `Reader` reads for it.

    trains_language_model: whether the language model learns with it; otherwise it stays frozen.
    runs_every_part: whether the loss of every batch needs all modules that train, once each.
    uses_threshold: whether the candidates whose score reaches the threshold are chosen.
    """

    trains_language_model: bool
    runs_every_part: bool

    @property
    def uses_threshold(self) -> bool:
        """See the class."""
        ...

    @property
    def blocks(self) -> list[nn.Module]:
        """Modules of its own that are alike and run one after another."""
        ...

    def begins_with(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether a checkpoint of `RAS` with these tensors, by name, has nothing of this scorer, and so is where its
        training begins."""
        ...

    def begin(self, lmm: LanguageModel) -> None:
        """Take from a language model that was loaded what the training begins with."""
        ...

    def read(self, reader: Reader, batch: Batch) -> ReadImages:
        """Read images and candidates once, for any number of prompts."""
        ...

    def labels(self, batch: Batch) -> Tensor | None:
        """What it learns to say: (B, P, N) float, 1 in the group, 0 not, -1 not counted; None where nobody knows."""
        ...

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Training losses by name, "loss" among them."""
        ...

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """Score every candidate for every prompt: (B, P, N), very negative on padding."""
        ...

    def answer(
        self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Probabilities and groups for prompts of one image that it read: (P, N) in [0, 1], (P, N) bool, on the CPU.

        references: (R, D), those of all prompts, in order.
        """
        ...


def in_passes(
    image: ReadImages, prompts: list[str], references: Tensor, most: int = PROMPTS_PER_PASS
) -> Iterator[tuple[list[str], ReadImages]]:
    """Prompts of one image, as many as share a forward pass, with the image that holds their references.

    references: (R, D), those of all prompts, in order.
    """
    taken = 0
    for start in range(0, len(prompts), most):
        some = prompts[start : start + most]
        used = sum(text.count(MASK_REF) for text in some)
        yield some, replace(image, tokens=replace(image.tokens, references=references[None, taken : taken + used]))
        taken += used


def candidate_orders(valid: Tensor, shuffle: bool) -> list[list[int]]:
    """For each row its candidate numbers, shuffled in training so that order cannot be learned."""
    orders = []
    for row in valid:
        numbers = row.nonzero()[:, 0]
        if shuffle:
            numbers = numbers[torch.randperm(len(numbers), device=numbers.device)]
        orders.append(numbers.tolist())
    return orders


def read_images(reader: Reader, batch: Batch, shuffle: bool = False) -> ReadImages:
    """Embed a batch and run its prefixes once, unless the language model checkpoints its activations."""
    images = laid_out(reader, batch, candidate_orders(batch.candidate_valid, shuffle))
    if not (reader.lmm.gradient_checkpointing and torch.is_grad_enabled()):
        images.cache = reader.lmm.new_cache()
        # Right padding needs no mask here: with plain causal attention no real position sees it.
        reader.lmm.hidden(reader.embed(images.rows, images.tokens), None, images.rows.positions, images.cache)
    return images


def laid_out(reader: Reader, batch: Batch, orders: list[list[int]]) -> ReadImages:
    """Images that are embedded and not yet read. orders: for each the candidates that stand in its prefix."""
    tokens = reader.tokens(batch)
    prefixes = reader.prefixes(tokens, orders)
    rows = sequence.pack([(prefix, []) for prefix in prefixes]).to(tokens.candidates.device)
    return ReadImages(tokens, prefixes, orders, rows, None)


def lay_out_prompts(reader: Reader, prompts: list[str], start: int) -> list[Segment]:
    """Segments of the prompts of one image, whose references are numbered through."""
    segments, first = [], 0
    for text in prompts:
        segments.append(reader.prompt(text, start, first))
        first += text.count(MASK_REF)
    return segments


def prompt_hidden(
    reader: Reader, images: ReadImages, parts: list[list[list[Segment]]], second_pass: SecondPass
) -> tuple[PackedRows, Tensor]:
    """Run prompts behind their images: one row for each prompt, or one for each image where there is no cache.

    parts: for each image and prompt its segments.
    Returns the rows, without prefix, and their hidden states (rows, L, D).
    """
    device = images.tokens.candidates.device
    if images.cache is None:
        full = list(zip(images.prefixes, parts, strict=True))
        packed = sequence.pack([(prefix, prompts) for prefix, prompts in full]).to(device)
        seen = sequence.visibility(packed, second_pass)
        return packed, reader.lmm.hidden(reader.embed(packed, images.tokens), seen, packed.positions)
    owners = torch.tensor(
        [image for image, prompts in enumerate(parts) for _ in prompts], dtype=torch.int64, device=device
    )
    packed = sequence.pack([(None, [prompt]) for prompts in parts for prompt in prompts]).to(device)
    groups = like_lengths([sum(map(len, prompt)) for prompts in parts for prompt in prompts])
    found = [
        reader.lmm.hidden(*behind_cache(reader, images, packed.some(rows), owners[rows], second_pass))
        for rows in groups
    ]
    length = packed.kinds.shape[1]
    together = torch.cat([F.pad(part, (0, 0, 0, length - part.shape[1])) for part in found])
    return packed, together[
        torch.tensor([row for rows in groups for row in rows], dtype=torch.int64).argsort().to(device)
    ]


def behind_cache(
    reader: Reader, images: ReadImages, packed: PackedRows, owners: Tensor, second_pass: SecondPass
) -> tuple[Tensor, Tensor, Tensor, Any]:
    """What the language model runs rows with that each stand behind the cached image that owns them.

    owners: (rows,) int64. Returns embeddings, what they see, positions and a cache of their own, see `lmm.hidden`.
    """
    assert images.cache is not None
    cache = repeated_cache(reader, images.cache, owners)
    before = (images.rows.kinds != Slot.PAD)[owners][:, None, None].expand(-1, -1, packed.kinds.shape[1], -1)
    seen = torch.cat([before, sequence.visibility(packed, second_pass)], -1)
    return reader.embed(packed, images.tokens, owners), seen, packed.positions, cache


def like_lengths(lengths: list[int], fewest: int = 24, growth: float = 1.25) -> list[list[int]]:
    """Row numbers in groups of similar length, shortest first: less padding for a few more passes.

    fewest: rows that a group has at least, as far as there are.  growth: a row that is this much longer than the
    shortest of a group opens the next.
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
    """The cache with a row for each prompt; gradients flow back into the one row of its image."""
    out = reader.lmm.new_cache()
    for number, layer in enumerate(cache.layers):
        out.update(layer.keys[owners], layer.values[owners], number)
    return out


class PrefixScorer(nn.Module):
    """What scorers share whose language model reads the candidates with the image, and learns to."""

    trains_language_model = True
    runs_every_part = False
    uses_threshold = True

    @property
    def blocks(self) -> list[nn.Module]:
        """None: all that is large is the language model."""
        return []

    def begins_with(self, tensors: Mapping[str, Tensor]) -> bool:
        """See `Scorer`: a checkpoint of stage 1 has no head."""
        return not any(name.startswith("scorer.") for name in tensors)

    def begin(self, lmm: LanguageModel) -> None:
        """The head stays as it was drawn."""

    def read(self, reader: Reader, batch: Batch) -> ReadImages:
        """Images and candidates, read by the language model."""
        return read_images(reader, batch)

    def labels(self, batch: Batch) -> Tensor | None:
        """Those of the batch."""
        return batch.labels


def asked_of(prompts: list[list[str]]) -> Tensor:
    """Which prompts there are, where some images have fewer: (B, P) bool."""
    counts = torch.tensor([len(texts) for texts in prompts], dtype=torch.int64)
    return torch.arange(int(counts.max())) < counts[:, None]


class ParallelScorer(PrefixScorer):
    """All candidates at once (RAS, section 3.3): the binary head on the second-pass hidden states.

    Args:
        width: D of the language model.
        second_pass: how candidates see each other in the second pass, see `tokens/sequence.py`.
        positive_weight: weight of positives in the binary cross entropy (5 in the paper).
    """

    runs_every_part = True

    def __init__(self, width: int, second_pass: SecondPass = "mutual", positive_weight: float = 5.0) -> None:
        super().__init__()
        self.head = BinaryHead(width)
        self.second_pass = second_pass
        self.positive_weight = positive_weight

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Binary cross entropy over candidates and prompts. Raises ValueError for a batch without labels."""
        if batch.labels is None:
            raise ValueError("a training batch needs labels")
        logits, asked = self.logits(reader, batch), asked_of(batch.prompts).to(batch.labels.device)
        valid = (batch.candidate_valid[:, None] & (batch.labels >= 0))[asked]
        return {"loss": selection_loss(logits[asked], batch.labels[asked], valid, self.positive_weight)}

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """(B, P, N) logits; -1e4 where there is no candidate."""
        images = read_images(reader, batch, shuffle=self.training)
        return self._logits(reader, images, batch.prompts)

    def _logits(self, reader: Reader, images: ReadImages, prompts: list[list[str]]) -> Tensor:
        parts = []
        for prefix, order, texts in zip(images.prefixes, images.orders, prompts, strict=True):
            segments = lay_out_prompts(reader, texts, prefix.end)
            parts.append([[s, sequence.answer_segment(order, s.end, self.second_pass)] for s in segments])
        packed, hidden = prompt_hidden(reader, images, parts, self.second_pass)
        row, column = torch.nonzero(packed.kinds == Slot.ANSWER, as_tuple=True)
        found = self.head(hidden[row, column]).float()
        shape = (len(prompts), max(len(p) for p in prompts), images.tokens.candidates.shape[1])
        if images.cache is None:  # one row an image
            image, prompt = row, packed.blocks[row, column]
        else:
            places = [(i, p) for i, texts in enumerate(prompts) for p in range(len(texts))]
            image, prompt = torch.tensor(places, dtype=torch.int64, device=row.device)[row].T
        out = torch.full(shape, -1e4, dtype=torch.float32, device=found.device)
        return out.index_put((image, prompt, packed.values[row, column]), found)

    def answer(
        self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """(P, N) probabilities behind the read image, and which reach the threshold."""
        passes = in_passes(image, prompts, references)
        scores = torch.cat([self._logits(reader, held, [some])[0].sigmoid().cpu() for some, held in passes])
        return scores, scores >= threshold
