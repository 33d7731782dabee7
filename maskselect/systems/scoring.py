"""Two ways to score candidates once image and prompt have been read: all in one pass, or one after another.

Both answer the same calls, so `systems/ras.py` does not ask which one it holds.

Shape letters: B images, P prompts, N candidates, L positions, D width.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from maskselect.heads.autoregressive import NextMaskHead
from maskselect.heads.binary import BinaryHead
from maskselect.losses.selection import selection_loss
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
    cache: None when the prefix is to be run again together with the prompts (gradient checkpointing forbids caches).
    """

    tokens: Tokens
    prefixes: list[Segment]
    orders: list[list[int]]
    rows: PackedRows
    cache: DynamicCache | None


class Scorer(Protocol):
    """Scores candidates of images that a `Reader` has read."""

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Training losses by name, "loss" among them."""
        ...

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """Score every candidate for every prompt: (B, P, N), very negative on padding."""
        ...

    def score(self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor) -> Tensor:
        """Probabilities of every candidate for prompts of one read image: (P, N) in [0, 1]."""
        ...


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
    tokens = reader.tokens(batch)
    orders = candidate_orders(batch.candidate_valid, shuffle)
    prefixes = [reader.prefix(order, tokens.images.shape[1]) for order in orders]
    rows = sequence.pack([(prefix, []) for prefix in prefixes]).to(tokens.candidates.device)
    cache = None
    if not (reader.lmm.gradient_checkpointing and torch.is_grad_enabled()):
        cache = reader.lmm.new_cache()
        # Right padding needs no mask here: with plain causal attention no real position sees it.
        reader.lmm.hidden(reader.embed(rows, tokens), None, rows.positions, cache)
    return ReadImages(tokens, prefixes, orders, rows, cache)


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
    owners = torch.tensor([image for image, prompts in enumerate(parts) for _ in prompts], device=device)
    packed = sequence.pack([(None, [prompt]) for prompts in parts for prompt in prompts]).to(device)
    groups = like_lengths([sum(map(len, prompt)) for prompts in parts for prompt in prompts])
    found = [_behind_cache(reader, images, packed.some(rows), owners[rows], second_pass) for rows in groups]
    length = packed.kinds.shape[1]
    together = torch.cat([F.pad(part, (0, 0, 0, length - part.shape[1])) for part in found])
    return packed, together[torch.tensor([row for rows in groups for row in rows]).argsort().to(device)]


def _behind_cache(
    reader: Reader, images: ReadImages, packed: PackedRows, owners: Tensor, second_pass: SecondPass
) -> Tensor:
    """Hidden states of rows that each stand behind the cached image that owns them."""
    assert images.cache is not None
    cache = repeated_cache(reader, images.cache, owners)
    before = (images.rows.kinds != Slot.PAD)[owners][:, None, None].expand(-1, -1, packed.kinds.shape[1], -1)
    seen = torch.cat([before, sequence.visibility(packed, second_pass)], -1)
    return reader.lmm.hidden(reader.embed(packed, images.tokens, owners), seen, packed.positions, cache)


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


def repeated_cache(reader: Reader, cache: DynamicCache, owners: Tensor) -> DynamicCache:
    """The cache with a row for each prompt; gradients flow back into the one row of its image."""
    out = reader.lmm.new_cache()
    for number, layer in enumerate(cache.layers):
        out.update(layer.keys[owners], layer.values[owners], number)
    return out


class ParallelScorer(nn.Module):
    """All candidates at once (RAS, section 3.3): the binary head on the second-pass hidden states.

    Args:
        width: D of the language model.
        second_pass: how candidates see each other in the second pass, see `tokens/sequence.py`.
        positive_weight: weight of positives in the binary cross entropy (5 in the paper).
    """

    def __init__(self, width: int, second_pass: SecondPass = "mutual", positive_weight: float = 5.0) -> None:
        super().__init__()
        self.head = BinaryHead(width)
        self.second_pass = second_pass
        self.positive_weight = positive_weight

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Binary cross entropy over candidates and prompts. Raises ValueError for a batch without labels."""
        if batch.labels is None:
            raise ValueError("a training batch needs labels")
        logits = self.logits(reader, batch)
        valid = batch.candidate_valid[:, None] & (batch.labels >= 0)
        return {"loss": selection_loss(logits, batch.labels, valid, self.positive_weight)}

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """(B, P, N) logits; -1e4 where there is no candidate."""
        images = read_images(reader, batch, shuffle=self.training)
        return self._logits(reader, images, batch.prompts)

    def _logits(self, reader: Reader, images: ReadImages, prompts: list[list[str]]) -> Tensor:
        parts = []
        for prefix, order, texts in zip(images.prefixes, images.orders, prompts, strict=True):
            segments = lay_out_prompts(reader, texts, len(prefix))
            parts.append(
                [[s, sequence.answer_segment(order, len(prefix) + len(s), self.second_pass)] for s in segments]
            )
        packed, hidden = prompt_hidden(reader, images, parts, self.second_pass)
        row, column = torch.nonzero(packed.kinds == Slot.ANSWER, as_tuple=True)
        found = self.head(hidden[row, column]).float()
        shape = (len(prompts), max(len(p) for p in prompts), images.tokens.candidates.shape[1])
        if images.cache is None:  # one row an image
            image, prompt = row, packed.blocks[row, column]
        else:
            places = [(i, p) for i, texts in enumerate(prompts) for p in range(len(texts))]
            image, prompt = torch.tensor(places, device=row.device)[row].T
        out = torch.full(shape, -1e4, device=found.device)
        return out.index_put((image, prompt, packed.values[row, column]), found)

    def score(self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor) -> Tensor:
        """(P, N) probabilities behind the read image. references: (R, D), those of all prompts, in order."""
        out, taken = [], 0
        for start in range(0, len(prompts), PROMPTS_PER_PASS):
            some = prompts[start : start + PROMPTS_PER_PASS]
            used = sum(text.count(MASK_REF) for text in some)
            held = replace(image, tokens=replace(image.tokens, references=references[None, taken : taken + used]))
            out.append(self._logits(reader, held, [some])[0].sigmoid().cpu())
            taken += used
        return torch.cat(out)


class AutoregressiveScorer(nn.Module):
    """Targets one after another (the baseline of RAS, Table 7): predict an embedding, take the nearest candidate.

    In training the targets stand in the order of the candidates in the prefix, behind each other (teacher forcing).

    Args:
        width: D of the language model.
        max_masks: most masks that are named for one prompt.
    """

    def __init__(self, width: int, max_masks: int = 16) -> None:
        super().__init__()
        self.head = NextMaskHead(width)
        self.max_masks = max_masks

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy of the next candidate or the end, mean over prompts. Raises ValueError without labels."""
        if batch.labels is None:
            raise ValueError("a training batch needs labels")
        images = read_images(reader, batch, shuffle=self.training)
        parts: list[list[list[Segment]]] = []
        steps: list[tuple[int, int, list[int]]] = []
        for number, (prefix, order) in enumerate(zip(images.prefixes, images.orders, strict=True)):
            parts.append([])
            for block, prompt in enumerate(lay_out_prompts(reader, batch.prompts[number], len(prefix))):
                targets = [n for n in order if batch.labels[number, block, n] > 0][: self.max_masks]
                answer = sequence.answer_segment(targets, len(prefix) + len(prompt), "causal")
                parts[-1].append([prompt, answer])
                steps.append((number, block, targets))
        packed, hidden = prompt_hidden(reader, images, parts, "causal")
        end = images.tokens.candidates.shape[1]
        losses = []
        for row, (number, block, targets) in enumerate(steps):
            place, own = (row, packed.blocks[row] == 0) if images.cache else (number, packed.blocks[number] == block)
            last = int((own & (packed.kinds[place] != Slot.PAD)).nonzero()[-1])
            logits = self.head(hidden[place, last - len(targets) : last + 1], images.tokens.candidates[number])
            logits = logits.masked_fill(F.pad(~images.tokens.valid[number], (0, 1)), -1e4)
            losses.append(F.cross_entropy(logits.float(), torch.tensor([*targets, end], device=logits.device)))
        return {"loss": torch.stack(losses).mean()}

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """(B, P, N) logits by decoding each image and prompt in turn: +10 named, -10 not named, -1e4 on padding."""
        shape = (len(batch.prompts), max(len(p) for p in batch.prompts), batch.candidate_valid.shape[1])
        out = torch.full(shape, -1e4, device=batch.candidate_features.device)
        for number in range(len(batch.prompts)):
            image = read_images(reader, batch.row(number))
            scores = self.score(reader, image, batch.prompts[number], image.tokens.references[0]).to(out.device)
            order = image.orders[0]
            out[number, : len(scores), order] = torch.where(scores[:, order] > 0, 10.0, -10.0)
        return out

    def score(self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor) -> Tensor:
        """(P, N): the probability with which each candidate was named, at least 0.5; 0 when it was not."""
        out, taken = [], 0
        for text in prompts:
            used = text.count(MASK_REF)
            out.append(self._decode(reader, image, text, references[taken : taken + used]))
            taken += used
        return torch.stack(out)

    @torch.no_grad()
    def _decode(self, reader: Reader, image: ReadImages, text: str, references: Tensor) -> Tensor:
        held = replace(image.tokens, references=references[None])
        device = held.candidates.device
        cache = image.cache
        if cache is None:
            raise ValueError("decoding needs an image that was read without gradients")
        named = torch.zeros(held.candidates.shape[1] + 1, device=device)
        blocked = F.pad(~held.valid[0], (0, 1))
        prompt = reader.prompt(text, len(image.prefixes[0]))
        rows = sequence.pack([(None, [[prompt]])]).to(device)
        step, positions, fed = reader.embed(rows, held), rows.positions, 0
        while True:
            hidden = reader.lmm.hidden(step, None, positions, cache)[:, -1:]
            fed += step.shape[1]
            probabilities = self.head(hidden, held.candidates)[0, 0].masked_fill(blocked, -1e4).float().softmax(-1)
            best = int(probabilities.argmax())
            if best == len(named) - 1 or int((named > 0).sum()) >= self.max_masks:
                break
            named[best] = probabilities[best].clamp(min=0.5)
            blocked[best] = True
            step, positions = held.candidates[:, best : best + 1], positions[:, -1:] + 1
        cache.crop(-fed)
        return named[:-1].cpu()
