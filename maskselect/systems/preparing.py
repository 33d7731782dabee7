"""Batches for candidate systems. Candidates, features and overlaps of an image are computed once and cached on disk.

Shape letters: N candidates, M annotated masks, C pooled channels, T image tokens, E vision width.
"""

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from maskselect.backends.cache_keys import cache_key
from maskselect.backends.sharded import in_zero3_shards
from maskselect.ops.masks import resize_nearest
from maskselect.ops.overlap import pairwise_iop, pairwise_iou
from maskselect.structures.features import FeatureMap
from maskselect.structures.groups import Annotated, CandidateSource, GroupSource, PrepareSettings, Query, using
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer
from maskselect.structures.sample import Batch, Overlaps
from maskselect.systems.record_files import RecordFiles, record_name, rng_of, tensors_of

_MEMORY_BYTES = 4 * 2**30  # of records in memory; further ones are read from disk every time
_RECORD_FORM = 2  # to increment whenever the content of a record changes


@dataclass(frozen=True)
class Record:
    """The cached features and overlaps of one image.

    Attributes:
        candidate_features: (N, C) float16.
        mask_features: (M, C) float16, of the annotated masks.
        image_features: (T, E) float16, or (0, 0) if the language model reads no image tokens.
        overlap: (N, M) float16, IoU of candidates and annotated masks.
        inside: (N, M) float16, share of each candidate inside each annotated mask.
        areas: (N + M,) float32, shares of the image that the candidates and then the annotated masks cover.
        extra: `Annotated.extra`.
        image_grid: (2,) int64, rows and columns of the image tokens; None if they are not on a grid.
    """

    candidate_features: Tensor
    mask_features: Tensor
    image_features: Tensor
    overlap: Tensor
    inside: Tensor
    areas: Tensor
    extra: dict[str, Tensor]
    image_grid: Tensor | None = None


class FrozenParts(Protocol):
    """The frozen parts that determine a candidate system's features; see `systems.candidates.CandidateSystem`."""

    proposer: Proposer
    channels: int
    image_tokens: bool
    captions: bool

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """Frozen networks that determine the features."""
        ...

    def encode(self, image: np.ndarray) -> list[FeatureMap]:
        """(H, W, 3) uint8 to feature maps."""
        ...

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """(N, C) features of N masks."""
        ...

    def image_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to (B, T, E)."""
        ...

    def image_grid(self, height: int, width: int) -> Tensor | None:
        """(2,) rows and columns of the image tokens; None if they are not on a grid."""
        ...


class FeatureStore:
    """Computes records with a system's frozen parts, and caches them on disk and in memory.

    Args:
        system: provides proposer, encoders and vision tower.
        cache_dir: folder of records; None caches nothing.
        synthetic_candidates: makes candidates from annotated masks, instead of the proposer.
    """

    def __init__(
        self, system: FrozenParts, cache_dir: Path | None, synthetic_candidates: CandidateSource | None = None
    ) -> None:
        self.system = system
        self.synthetic_candidates = synthetic_candidates
        self.folder = cache_dir / fingerprint(system, synthetic_candidates) if cache_dir is not None else None
        self.files = RecordFiles(Record, self.folder)
        self.in_memory: dict[str, Record] = {}
        self._free_bytes = _MEMORY_BYTES

    def record(self, source: GroupSource, item: int) -> Record:
        """The record of an image, from memory or disk, or newly computed.

        Raises:
            UnusableImageError: when the image cannot be read or has no candidates.
        """
        name = record_name(source, item)
        if name in self.in_memory:
            return self.in_memory[name]
        record = self.files.get(name, lambda: self._compute(source, item))
        size = sum(tensor.nbytes for tensor in tensors_of(record).values())
        if self.folder is not None and size <= self._free_bytes:
            self.in_memory[name] = record
            self._free_bytes -= size
        return record

    def keep(self, source: GroupSource, item: int) -> bool:
        """Compute and write the record of an image, unless it is on disk.

        Returns:
            Whether it was computed.

        Raises:
            ValueError: for a store without a folder.
            UnusableImageError: when the image cannot be read or has no candidates.
        """
        return self.files.keep(record_name(source, item), lambda: self._compute(source, item))

    def _compute(self, source: GroupSource, item: int) -> Record:
        """Compute a record.

        Raises:
            ValueError: under ZeRO-3, where all processes would have to compute the same record at the same time.
        """
        if any(in_zero3_shards(part) for part in self.system.visual_parts):
            raise ValueError(
                f"the frozen features of image {source.image_id(item)} are not kept in {self.folder}, and ZeRO-3 "
                "shards what computes them; run first: maskselect features -c CONFIG, with a data.init_args.cache_dir"
            )
        with using(source, item):
            annotated = source.load(item)
            if self.synthetic_candidates is None:
                return compute(self.system, annotated)
            candidates = self.synthetic_candidates.propose(annotated.masks, rng_of(source.image_id(item)))
            return compute(self.system, annotated, candidates)


@torch.no_grad()
def compute(system: FrozenParts, annotated: Annotated, candidates: MaskSet | None = None) -> Record:
    """Run the frozen parts on one image.

    Args:
        system: the frozen parts.
        annotated: the image.
        candidates: None runs the proposer.
    """
    if candidates is None:
        candidates = system.proposer.propose(annotated.image)
    count, masks = len(candidates), resize_nearest(annotated.masks, candidates.image_size)
    device = next(chain(*(part.parameters() for part in system.visual_parts))).device
    pixels = torch.from_numpy(annotated.image).permute(2, 0, 1)[None].float() / 255
    both = candidates.concat(MaskSet(masks, torch.ones(len(masks), dtype=torch.float32), "annotated"))
    pooled = system.pool_features(system.encode(annotated.image), both)
    image_features = torch.zeros(0, 0, dtype=torch.float32)
    if system.image_tokens:
        image_features = system.image_features(pixels.to(device))[0]
    return Record(
        candidate_features=pooled[:count].half().cpu(),
        mask_features=pooled[count:].half().cpu(),
        image_features=image_features.half().cpu(),
        overlap=pairwise_iou(candidates.masks, masks).half(),
        inside=pairwise_iop(candidates.masks, masks).half(),
        areas=both.masks.flatten(1).float().mean(1).cpu(),
        extra=annotated.extra,
        image_grid=system.image_grid(annotated.image.shape[0], annotated.image.shape[1]),
    )


def fingerprint(system: FrozenParts, synthetic_candidates: CandidateSource | None = None) -> str:
    """A digest of everything that determines a record: frozen weights, and the source of candidates."""
    return cache_key(
        "Record",
        form=_RECORD_FORM,
        parts=system.visual_parts,
        channels=system.channels,
        image_tokens=system.image_tokens,
        candidates=synthetic_candidates or system.proposer,
    )


@dataclass(frozen=True)
class LabelRule:
    """Labels candidates as positive, negative, or ignored.

    A candidate is positive if it is the best one of a target and their IoU is at least `best_iou`, or if its IoU with
    any target is at least `positive_iou`. Other candidates with an IoU of at least `best_iou` are ignored in the loss,
    because they are neither right nor clearly wrong. The rest is negative.
    """

    best_iou: float = 0.5
    positive_iou: float = 0.7

    def labels(self, overlap: Tensor, targets: tuple[int, ...]) -> Tensor:
        """(N, M) IoU and indices of the targets to (N,) float32: 1 positive, 0 negative, -1 ignored."""
        out = torch.zeros(len(overlap), dtype=torch.float32)
        if not targets or len(overlap) == 0:
            return out
        with_targets = overlap[:, list(targets)].float()
        highest = with_targets.max(1).values
        out[highest >= self.best_iou] = -1.0
        out[highest >= self.positive_iou] = 1.0
        best = with_targets.max(0)
        out[best.indices[best.values >= self.best_iou]] = 1.0
        return out


def drop_unmatched(record: Record, max_candidates: int, rng: np.random.Generator, match_iou: float = 0.5) -> Record:
    """Drop random candidates that match no annotated mask, until at most `max_candidates` are left, if possible.

    Otherwise a few crowded images would determine the length of every row of a batch.
    """
    count = len(record.candidate_features)
    if count <= max_candidates:
        return record
    matched = (record.overlap >= match_iou).any(1).numpy()
    others = rng.permutation(np.flatnonzero(~matched))[: max(0, max_candidates - int(matched.sum()))]
    kept = torch.from_numpy(np.sort(np.concatenate([np.flatnonzero(matched), others])))
    return replace(
        record,
        candidate_features=record.candidate_features[kept],
        overlap=record.overlap[kept],
        inside=record.inside[kept],
        areas=torch.cat([record.areas[kept], record.areas[count:]]),
    )


def overlaps_with(record: Record, targets: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """IoU (N,) and IoP (N,) of every candidate with the union of the targets, given by their indices.

    The intersection of two targets counts twice, but IoP is at most 1.
    """
    count = len(record.candidate_features)
    if not targets or count == 0:
        return torch.zeros(count, dtype=torch.float32), torch.zeros(count, dtype=torch.float32)
    chosen, areas = list(targets), record.areas[:count]
    iop = record.inside[:, chosen].float().sum(1).clamp(max=1)
    intersection, target_area = iop * areas, record.areas[count:][chosen].sum()
    return (intersection / (areas + target_area - intersection).clamp(min=1e-9)).clamp(max=1), iop


def make_batch(records: list[Record], queries: list[list[Query]], captions: list[str] | None, rule: LabelRule) -> Batch:
    """Pad records and prompts of B images to one `Batch`.

    Missing prompts have labels of -1, which losses ignore.
    """
    count, prompts = max(len(r.candidate_features) for r in records), max(len(q) for q in queries)
    channels = records[0].candidate_features.shape[1]
    features = torch.zeros(len(records), max(count, 1), channels, dtype=torch.float32)
    valid = torch.zeros(features.shape[:2], dtype=torch.bool)
    labels = torch.full((len(records), prompts, features.shape[1]), -1.0, dtype=torch.float32)
    iou, iop = torch.zeros_like(labels), torch.zeros_like(labels)
    any_target = torch.zeros(labels.shape[:2], dtype=torch.bool)
    references: list[list[Tensor]] = []
    for row, (record, of_image) in enumerate(zip(records, queries, strict=True)):
        size = len(record.candidate_features)
        features[row, :size], valid[row, :size] = record.candidate_features.float(), True
        references.append([record.mask_features[list(q.references)].float() for q in of_image])
        for block, query in enumerate(of_image):
            labels[row, block, :size] = rule.labels(record.overlap, query.targets)
            iou[row, block, :size], iop[row, block, :size] = overlaps_with(record, query.targets)
            any_target[row, block] = bool(query.targets)
    images = pad_sequence([r.image_features.float() for r in records], batch_first=True)
    grids = [r.image_grid for r in records if r.image_grid is not None]
    texts = [[q.text for q in of_image] for of_image in queries]
    overlaps = Overlaps(iou, iop, any_target)
    stacked = torch.stack(grids) if grids else None
    return Batch(features, valid, images, texts, references, labels, captions, overlaps=overlaps, image_grids=stacked)


@dataclass(frozen=True)
class CandidateItem:
    """One image of a batch. caption: "" if the system trains on prompts."""

    record: Record
    queries: list[Query]
    caption: str


class CandidatePreparer:
    """Makes batches for a candidate system from frozen features.

    Args:
        system: provides proposer, encoders and vision tower.
        settings: see `PrepareSettings`.
        training: False for validation, which has all candidates of the proposer.
    """

    def __init__(self, system: FrozenParts, settings: PrepareSettings, training: bool) -> None:
        self.rule = LabelRule(settings.best_iou, settings.positive_iou)
        self.captions = system.captions
        self.max_candidates = settings.max_candidates if training else None
        self.store = FeatureStore(system, settings.cache_dir, settings.synthetic_candidates if training else None)

    def keep(self, source: GroupSource, number: int) -> bool:
        """See `FeatureStore.keep`."""
        return self.store.keep(source, number)

    def prepare(self, source: GroupSource, number: int, rng: np.random.Generator, prompts: int) -> CandidateItem:
        """Frozen features of an image, with at most `prompts` prompts, or a caption.

        Raises:
            UnusableImageError: when the image cannot be used.
        """
        record = self.store.record(source, number)
        if self.max_candidates is not None:
            record = drop_unmatched(record, self.max_candidates, rng)
        with using(source, number):
            if self.captions:
                return CandidateItem(record, [Query("", (), ())], source.caption(number, record.extra, rng))
            return CandidateItem(record, source.queries(number, record.extra, prompts, rng), "")

    def collate(self, items: list[CandidateItem]) -> Batch:
        """Pad the items to one batch."""
        captions = [item.caption for item in items] if self.captions else None
        return make_batch([item.record for item in items], [item.queries for item in items], captions, self.rule)
