"""A decoder beside a frozen language model, which attends to all of its layers (VGent, arXiv 2512.11099).

    image, prompt with references -> frozen language model -> the inputs of all its layers
    mask tokens of candidates, count query -> decoder with cross-attention to them -> head: scores and count

The language model reads no candidates, so image and prompt are read once for any pool. From VGent: the frozen language
model, a decoder initialised from its layers, labels by intersection over the candidate's area with binary cross entropy
of weight 1, and count queries with an L1 loss of weight 10.

Ours: the attention of the decoder (`heads/candidate_decoder.py`), and one count query, which attends to candidates and
memory and to which no candidate attends. It predicts the share of candidates in the group, because attention averages;
the share times the number of candidates is the count. The L1 loss is on hundredths of the count: with weight 10 one
candidate too many costs 0.1 for any pool, about the cross entropy of a trained model. The count is not the number of
annotated targets, because two candidates may be parts of one target.

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
    Scorer,
    behind_cache,
    in_passes,
    lay_out_images,
    lay_out_prompts,
    like_lengths,
    prompt_mask,
    ungrouped,
)
from maskselect.tokens import sequence
from maskselect.tokens.sequence import PackedRows, Slot

_COUNT_UNIT = 100
"""Unit of the count in the L1 loss, in candidates."""


@dataclass(frozen=True)
class DecoderSettings:
    """Settings of a decoder, its labels and its answers.

    Attributes:
        every: the decoder has one layer for each `every`-th layer of the language model.
        positive_ioa: a candidate is in the group if more than this share of it lies in the union of the targets (0.6
            in VGent).
        ignored_ioa: the loss ignores candidates between this share and `positive_ioa`; None ignores none.
        positive_weight: weight of candidates in the group in the cross entropy.
        count_weight: weight of the L1 loss of the count in hundredths (10 in VGent).
        use_count: select as many of the best candidates as the count, rounded; else those that reach the threshold.

    Raises:
        ValueError: if a value is out of range.
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
    """The reading of images by a frozen language model, without candidates.

    Attributes:
        memory: the inputs of its layers, or keys and values of them for every layer of the decoder.
    """

    memory: LayerStates | list[Memory] = field(default_factory=list)


class DecoderScorer(Scorer):
    """Scores candidates by a `CandidateDecoder` beside a frozen language model.

    Args:
        lmm: the language model, whose layers initialise the decoder. The decoder uses gradient checkpointing if `lmm`
            does.
        settings: see `DecoderSettings`.

    Raises:
        ValueError: for a language model with LoRA, which would train it, and as `CandidateDecoder`.
    """

    trains_language_model = False
    runs_every_part = False  # without references no gradient flows through the language model

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
        """False if the count decides."""
        return not self.settings.use_count

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers of the decoder."""
        return list(self.decoder.layers)

    def begins_with(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the checkpoint has no decoder; the head of the scorer "parallel" is loaded."""
        return not any(name.startswith("scorer.decoder.") for name in tensors)

    def begin(self, lmm: LanguageModel) -> None:
        """Copy the layers of the language model into the decoder."""
        self.decoder.begin_as(lmm.language_model)

    def labels(self, batch: Batch) -> Tensor | None:
        """Labels by intersection over the candidate's area; None for a batch without overlaps."""
        if batch.overlaps is None:
            return None
        ioa, settings = batch.overlaps.iop, self.settings
        out = (ioa > settings.positive_ioa).float()
        if settings.ignored_ioa is not None:
            out[(ioa > settings.ignored_ioa) & (ioa <= settings.positive_ioa)] = -1
        exists = prompt_mask(batch.prompts).to(ioa.device)
        out[~(batch.candidate_valid[:, None] & exists[..., None])] = -1
        return out

    def loss(self, reader: Reader, batch: Batch) -> dict[str, Tensor]:
        """Means over prompts: "selection", the cross entropy; "count", the absolute error of the count; "loss", both.

        Raises:
            ValueError: for a batch without overlaps.
        """
        labels = self.labels(batch)
        if labels is None:
            raise ValueError("a training batch needs the overlaps of candidates with targets")
        logits, shares = self._logits_and_shares(reader, self.read(reader, batch), batch.prompts)
        exists = prompt_mask(batch.prompts).to(labels.device)
        logits, shares, labels = logits[exists], shares[exists], labels[exists]
        valid = batch.candidate_valid[:, None].expand(-1, exists.shape[1], -1)[exists]
        selection = selection_loss(logits, labels, valid & (labels >= 0), self.settings.positive_weight)
        count = F.l1_loss(shares * valid.sum(-1), (labels > 0).sum(-1).to(shares.dtype))
        loss = selection + self.settings.count_weight * count / _COUNT_UNIT
        return {"loss": loss, "selection": selection, "count": count}

    def logits(self, reader: Reader, batch: Batch) -> Tensor:
        """Logits (B, P, N); -1e4 on padding."""
        return self._logits_and_shares(reader, self.read(reader, batch), batch.prompts)[0]

    def answer(
        self, reader: Reader, image: ReadImages, prompts: list[str], references: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Probabilities (P, N) and groups (P, N) bool, by the threshold or by the count."""
        results = []
        for some, held in in_passes(image, prompts, references):
            logits, shares = self._logits_and_shares(reader, held, [some])
            results.append((logits[0].sigmoid().cpu(), shares[0].cpu()))
        scores, shares = (torch.cat(parts) for parts in zip(*results, strict=True))
        if not self.settings.use_count:
            return scores, scores >= threshold
        return scores, best(scores, (shares * int(image.tokens.valid.sum())).round())

    def read(self, reader: Reader, batch: Batch) -> LayeredImages:
        """Run the language model on images without candidates."""
        images = lay_out_images(reader, batch, [[] for _ in batch.prompts])
        cache = reader.lmm.new_cache()
        # Right padding needs no mask: with causal attention no real position attends to it.
        states = reader.lmm.layer_states(reader.embed(images.rows, images.tokens), None, images.rows.positions, cache)
        layers = LayerStates(states[:-1], images.rows.positions)
        memory = layers if self._recomputes(reader) else self.decoder.remember(layers)
        return LayeredImages(**{**vars(images), "cache": cache}, memory=memory)

    def _recomputes(self, reader: Reader) -> bool:
        """Whether the backward pass recomputes every layer with its memory; all rows are then one pass."""
        return reader.lmm.gradient_checkpointing and torch.is_grad_enabled()

    def _logits_and_shares(self, reader: Reader, images: ReadImages, prompts: list[list[str]]) -> tuple[Tensor, Tensor]:
        """Logits (B, P, N), -1e4 on padding, and shares of candidates in the group (B, P)."""
        if not isinstance(images, LayeredImages):
            raise ValueError("the images were read by another scorer; expected the result of this one's read()")
        device = images.tokens.candidates.device
        segments = [
            lay_out_prompts(reader, texts, prefix.end) for prefix, texts in zip(images.prefixes, prompts, strict=True)
        ]
        exists = prompt_mask(prompts).to(device)
        owners, numbers = exists.nonzero().T
        packed = sequence.pack([(None, [[segment]]) for row in segments for segment in row]).to(device)
        groups = self._groups(reader, packed)
        hidden = ungrouped(groups, [self._decode(reader, images, packed.some(rows), owners[rows]) for rows in groups])
        scores = self.head(hidden[:, :-1]).float().masked_fill(~images.tokens.valid[owners], -1e4)
        logits = torch.full((*exists.shape, scores.shape[1]), -1e4, dtype=torch.float32, device=device)
        shares = torch.zeros(exists.shape, dtype=torch.float32, device=device)
        place = owners, numbers
        return logits.index_put(place, scores), shares.index_put(place, self.count_head(hidden[:, -1]).float())

    def _groups(self, reader: Reader, packed: PackedRows) -> list[list[int]]:
        """Groups of rows by length; rows with references are separate, because only they need gradients."""
        lengths = (packed.kinds != Slot.PAD).sum(1).tolist()
        if self._recomputes(reader):
            return [list(range(len(lengths)))]
        refers = (packed.kinds == Slot.REFERENCE).any(1).tolist()
        groups = []
        for kind in (False, True):
            rows = [row for row, refer in enumerate(refers) if refer == kind]
            groups += [[rows[n] for n in some] for some in like_lengths([lengths[row] for row in rows]) if some]
        return groups

    def _decode(self, reader: Reader, images: LayeredImages, packed: PackedRows, owners: Tensor) -> Tensor:
        """Hidden states of the candidates, then of the count query, (R, N + 1, D). owners: the image of each row."""
        embedded, *arguments = behind_cache(reader, images, packed, owners, "causal")
        if is_sharded(self.decoder.layers[0]):
            # Ranks gather layers together, so every rank needs a gradient, also without references.
            embedded = embedded + 0 * sum(p.sum() for p in reader.mask_tokenizer.parameters())
        states = reader.lmm.layer_states(embedded, *arguments)
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
                LayerStates(states[:-1], packed.positions),
            )
        return out


def _visible(parts: Sequence[Tensor]) -> Tensor:
    """The visibility of keys to queries, (R, 1, N + 1, K) bool.

    All queries attend to the valid positions of the parts, of which the last are the N candidates. Only the count
    query, the last one, attends to itself.
    """
    valid = torch.cat([*parts, torch.zeros_like(parts[-1][:, :1])], 1)
    visible = valid[:, None].repeat(1, parts[-1].shape[1] + 1, 1)
    visible[:, -1, -1] = True
    return visible[:, None]


def best(scores: Tensor, counts: Tensor) -> Tensor:
    """The best `counts` (P,) of every row of `scores` (P, N), as (P, N) bool; earlier ones first among equals."""
    ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return ranks < counts[:, None]
