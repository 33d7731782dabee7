"""Candidates scored beside a frozen language model, by a decoder that reads all its layers (VGent, arXiv 2512.11099).

    image, prompt with its references -> frozen language model -> what goes into each of its layers
    mask tokens of the candidates, count query -> decoder on all of that -> head: in the group or not; how many are

The language model reads no candidates, so an image and a prompt are read once, whatever the pool. Of VGent we know: the
frozen language model, a decoder initialised from its layers, labels by intersection over the candidate's own area with
binary cross entropy of weight 1, and count queries with L1 of weight 10. The rest is ours: `heads/candidate_decoder.py`
tells how the decoder attends; one count query sees candidates and memory, and no candidate sees it. It says which share
of the candidates is in the group, since a share is what attention, which averages, can read off them; times their
number it is the count, and L1 is on that in hundredths: with weight 10 one candidate too many costs 0.1, whatever the
pool, where the cross entropy of a trained model is. How many targets an annotator named is another number: two
candidates may be parts of one target.

Shape letters: B images, P prompts, N candidates, R rows (one a prompt), T memory positions of an image, L of a prompt,
D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends.sharded import is_sharded
from maskselect.heads.binary import BinaryHead
from maskselect.heads.candidate_decoder import CandidateDecoder, LayerStates, Memory
from maskselect.losses.selection import selection_loss
from maskselect.structures.protocols import LanguageModel
from maskselect.structures.sample import Batch
from maskselect.systems.reading import Reader
from maskselect.systems.scoring import (
    ReadImages,
    asked_of,
    behind_cache,
    in_passes,
    laid_out,
    lay_out_prompts,
    like_lengths,
)
from maskselect.tokens import sequence
from maskselect.tokens.sequence import PackedRows, Slot

_COUNT_UNIT = 100
"""Candidates in which the L1 loss counts."""


@dataclass(frozen=True)
class DecoderSettings:
    """What there is to choose of a decoder, its labels and its answers.

    every: the decoder has a layer for each `every`-th of the language model.
    positive_ioa: a candidate is in the group when more than this share of it lies in the union of the targets (0.6 in
        VGent).
    ignored_ioa: candidates between this share and `positive_ioa` are left out of the loss; None leaves out none.
    positive_weight: of candidates in the group, in the cross entropy.
    count_weight: of the L1 loss of the count in hundredths (10 in VGent).
    use_count: a group is as many of the best as are counted, none where that rounds to 0; else those that reach the
        threshold.

    Raises ValueError for values out of their ranges.
    """

    every: int = 1
    positive_ioa: float = 0.6
    ignored_ioa: float | None = None
    positive_weight: float = 1.0
    count_weight: float = 10.0
    use_count: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.positive_ioa < 1:
            raise ValueError(f"positive_ioa must be in [0, 1), got {self.positive_ioa}")
        if self.ignored_ioa is not None and not 0 <= self.ignored_ioa <= self.positive_ioa:
            raise ValueError(f"ignored_ioa must be from 0 to positive_ioa, got {self.ignored_ioa}")
        if self.positive_weight <= 0 or self.count_weight < 0:
            raise ValueError("positive_weight must be above 0, and count_weight not below")


@dataclass
class LayeredImages(ReadImages):
    """Images that a frozen language model read, without candidates.

    memory: what went into its layers, or keys and values of it for every layer of the decoder.
    """

    memory: LayerStates | list[Memory] = field(default_factory=list)


class DecoderScorer(nn.Module):
    """Scores candidates by a `CandidateDecoder` beside a frozen language model.

    Args:
        lmm: the language model, whose layers the decoder begins as; with gradient checkpointing the decoder too runs
            its layers again in the backward pass.
        settings: see `DecoderSettings`.

    Raises ValueError for a language model with LoRA, which would train it, and as `CandidateDecoder` does.
    """

    trains_language_model = False
    runs_every_part = False  # without references nothing comes back through the language model

    def __init__(self, lmm: LanguageModel, settings: DecoderSettings) -> None:
        super().__init__()
        if any("lora_" in name for name, _ in lmm.language_model.named_parameters()):
            raise ValueError("scorer 'decoder' keeps the language model frozen; expected lmm without lora")
        self.settings = settings
        self.decoder = CandidateDecoder(lmm.language_model, settings.every, lmm.gradient_checkpointing)
        self.head = BinaryHead(lmm.width)
        self.count_query = nn.Parameter(torch.randn(lmm.width, dtype=torch.float32) * 0.02)
        self.count_head = BinaryHead(lmm.width)

    @property
    def uses_threshold(self) -> bool:
        """False where the count decides."""
        return not self.settings.use_count

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers of the decoder."""
        return list(self.decoder.layers)

    def begins_with(self, tensors: Mapping[str, Tensor]) -> bool:
        """See `Scorer`: a checkpoint of scorer "parallel" is a beginning, too, whose head is taken."""
        return not any(name.startswith("scorer.decoder.") for name in tensors)

    def begin(self, lmm: LanguageModel) -> None:
        """The decoder copies the layers of the language model."""
        self.decoder.begin_as(lmm.language_model)

    def labels(self, batch: Batch) -> Tensor | None:
        """By intersection over the candidate's area: (B, P, N) float, 1 in the group, 0 not, -1 not counted.

        None for a batch that does not know how candidates and targets overlap.
        """
        if batch.overlaps is None:
            return None
        ioa, settings = batch.overlaps.iop, self.settings
        out = (ioa > settings.positive_ioa).float()
        if settings.ignored_ioa is not None:
            out[(ioa > settings.ignored_ioa) & (ioa <= settings.positive_ioa)] = -1
        asked = asked_of(batch.prompts).to(ioa.device)
        out[~(batch.candidate_valid[:, None] & asked[..., None])] = -1
        return out

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """The "loss", from "selection", the cross entropy, and "count", by how many candidates the count is wrong.

        All are means over prompts.

        Raises ValueError for a batch without overlaps.
        """
        labels = self.labels(batch)
        if labels is None:
            raise ValueError("a training batch needs the overlaps of candidates with targets")
        logits, shares = self._found(reader, self.read(reader, batch), batch.prompts)
        asked = asked_of(batch.prompts).to(labels.device)
        logits, shares, labels = logits[asked], shares[asked], labels[asked]
        valid = batch.candidate_valid[:, None].expand(-1, asked.shape[1], -1)[asked]
        selection = selection_loss(logits, labels, valid & (labels >= 0), self.settings.positive_weight)
        count = F.l1_loss(shares * valid.sum(-1), (labels > 0).sum(-1).to(shares.dtype))
        loss = selection + self.settings.count_weight * count / _COUNT_UNIT
        return {"loss": loss, "selection": selection, "count": count}

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """(B, P, N) logits; -1e4 where there is no candidate."""
        return self._found(reader, self.read(reader, batch), batch.prompts)[0]

    def answer(
        self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Probabilities (P, N) and groups (P, N) bool: by the threshold or, if so set, by the count.

        references: (R, D), those of all prompts, in order.
        """
        found = []
        for some, held in in_passes(image, prompts, references):
            logits, shares = self._found(reader, held, [some])
            found.append((logits[0].sigmoid().cpu(), shares[0].cpu()))
        scores, counted = torch.cat([s for s, _ in found]), torch.cat([c for _, c in found])
        if not self.settings.use_count:
            return scores, scores >= threshold
        return scores, best(scores, (counted * int(image.tokens.valid.sum())).round())

    def read(self, reader: Reader, batch: Batch) -> LayeredImages:
        """Images without their candidates, read by the language model as far as no prompt is needed."""
        laid = laid_out(reader, batch, [[] for _ in batch.prompts])
        cache = reader.lmm.new_cache()
        # Right padding needs no mask here: with plain causal attention no real position sees it.
        states = reader.lmm.layer_states(reader.embed(laid.rows, laid.tokens), None, laid.rows.positions, cache)
        read = LayerStates(states, laid.rows.positions)
        memory = read if self._recomputes(reader) else self.decoder.remember(read)
        return LayeredImages(**{**vars(laid), "cache": cache}, memory=memory)

    def _recomputes(self, reader: Reader) -> bool:
        """Whether every layer is run again in the backward pass, its memory with it, all rows in one pass."""
        return reader.lmm.gradient_checkpointing and torch.is_grad_enabled()

    def _found(self, reader: Reader, images: ReadImages, prompts: list[list[str]]) -> tuple[Tensor, Tensor]:
        """Logits (B, P, N), -1e4 where there is no candidate or no prompt, and shares in the group (B, P)."""
        if not isinstance(images, LayeredImages):
            raise ValueError("the images were read by another scorer; expected what this one's read() gave")
        device = images.tokens.candidates.device
        segments = [
            lay_out_prompts(reader, texts, prefix.end) for prefix, texts in zip(images.prefixes, prompts, strict=True)
        ]
        asked = asked_of(prompts).to(device)
        owners, place = asked.nonzero().T
        packed = sequence.pack([(None, [[segment]]) for own in segments for segment in own]).to(device)
        groups = self._groups(reader, packed)
        hidden = torch.cat([self._decoded(reader, images, packed.some(rows), owners[rows]) for rows in groups])
        hidden = hidden[torch.tensor([row for rows in groups for row in rows], dtype=torch.int64).argsort().to(device)]
        found = self.head(hidden[:, :-1]).float().masked_fill(~images.tokens.valid[owners], -1e4)
        logits = torch.full((*asked.shape, found.shape[1]), -1e4, dtype=torch.float32, device=device).index_put(
            (owners, place), found
        )
        shares = self.count_head(hidden[:, -1]).float()
        return logits, torch.zeros(asked.shape, dtype=torch.float32, device=device).index_put((owners, place), shares)

    def _groups(self, reader: Reader, packed: PackedRows) -> list[list[int]]:
        """Rows of similar length, those with references apart: the language model passes gradients to these alone."""
        lengths = (packed.kinds != Slot.PAD).sum(1).tolist()
        if self._recomputes(reader):
            return [list(range(len(lengths)))]
        refers = (packed.kinds == Slot.REFERENCE).any(1).tolist()
        groups = []
        for kind in (False, True):
            rows = [row for row, refer in enumerate(refers) if refer == kind]
            groups += [[rows[n] for n in some] for some in like_lengths([lengths[row] for row in rows]) if some]
        return groups

    def _decoded(self, reader: Reader, images: LayeredImages, packed: PackedRows, owners: Tensor) -> Tensor:
        """Hidden states of the candidates and, last, of the count query, (R, N + 1, D). owners: the rows' images."""
        embedded, *seen = behind_cache(reader, images, packed, owners, "causal")
        if is_sharded(self.decoder.layers[0]):
            # Processes gather layers together, so what passes gradients on in one must do so in all, references or not.
            embedded = embedded + 0 * sum(p.sum() for p in reader.mask_tokenizer.parameters())
        states = reader.lmm.layer_states(embedded, *seen)
        candidates, valid = images.tokens.candidates[owners], images.tokens.valid[owners]
        queries = torch.cat([candidates, self.count_query.expand(len(owners), 1, -1).to(candidates.dtype)], 1)
        before = [kinds != Slot.PAD for kinds in (images.rows.kinds[owners], packed.kinds)]
        positions = (packed.positions.amax(1) + 1)[:, None].expand(queries.shape[:2])
        with reader.lmm.attention(queries.device, torch.is_grad_enabled()):
            out: Tensor = self.decoder(
                queries,
                positions,
                _visible([*before, valid]),
                images.memory,
                owners,
                LayerStates(states, packed.positions),
            )
        return out


def _visible(parts: Sequence[Tensor]) -> Tensor:
    """What each query sees: (R, 1, N + 1, K) bool. All see the parts, the last of them the N candidates, as far as
    there is something; the count query, which stands behind, sees itself as well, and nobody else sees it."""
    there = torch.cat([*parts, torch.zeros_like(parts[-1][:, :1])], 1)
    seen = there[:, None].repeat(1, parts[-1].shape[1] + 1, 1)
    seen[:, -1, -1] = True
    return seen[:, None]


def best(scores: Tensor, counts: Tensor) -> Tensor:
    """The best of every row: (P, N) scores and (P,) counts to (P, N) bool; of equals the earlier ones."""
    ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return ranks < counts[:, None]
