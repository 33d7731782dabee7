"""Batches for candidate systems: candidates, features and overlaps of an image are computed once and kept on disk.

Shape letters: N candidates, M annotated masks, C pooled channels, T image tokens, E vision width.
"""

import hashlib
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from maskselect.backends.cache_keys import cache_key
from maskselect.backends.sharded import in_zero3_shards
from maskselect.ops.atomic import atomic_file
from maskselect.ops.masks import resize_nearest
from maskselect.ops.overlap import pairwise_iop, pairwise_iou
from maskselect.structures.features import FeatureMap
from maskselect.structures.groups import Annotated, CandidateSource, GroupSource, PrepareSettings, Query, using
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer
from maskselect.structures.sample import Batch, Overlaps

_KEPT_BYTES = 4 * 2**30  # of records in memory; those beyond are read again
_RECORD_FORM = 2  # counted up when a record holds something else than before


@dataclass(frozen=True)
class Record:
    """What is kept of one image.

    candidate_features: (N, C); mask_features: (M, C); overlap: (N, M) IoU.
    image_features: (T, E), or (0, 0) where the language model sees no images.
    inside: (N, M), the share of each candidate that lies in each annotated mask.
    areas: (N + M,) float32, shares of the image that candidates and then annotated masks cover.
    extra: what the source asked to keep.
    image_grid: (2,) int64, rows and columns of the image tokens, where the language model puts them on a grid.
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
    """The frozen parts of a candidate system, which decide its features; see `systems.candidates.CandidateSystem`."""

    proposer: Proposer
    channels: int
    image_tokens: bool
    captions: bool

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """Frozen networks that decide the features."""
        ...

    def encode(self, image: np.ndarray) -> list[FeatureMap]:
        """(H, W, 3) uint8 to feature maps."""
        ...

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """Features (N, C) of N masks."""
        ...

    def image_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to (B, T, E)."""
        ...

    def image_grid(self, height: int, width: int) -> Tensor | None:
        """Rows and columns of the image tokens, None where they stand on no grid."""
        ...


class FeatureStore:
    """Computes records with a system's frozen parts, and keeps them when a folder is given.

    Args:
        system: whose proposer, encoders and vision tower are used.
        cache_dir: folder for records; None computes them at every visit.
        synthetic_candidates: makes candidates from annotated masks, in the proposer's place.
    """

    def __init__(
        self, system: FrozenParts, cache_dir: Path | None, synthetic_candidates: CandidateSource | None = None
    ) -> None:
        self.system = system
        self.synthetic_candidates = synthetic_candidates
        self.folder = cache_dir / fingerprint(system, synthetic_candidates) if cache_dir is not None else None
        self.kept: dict[str, Record] = {}
        self._room = _KEPT_BYTES

    def record(self, source: GroupSource, item: int) -> Record:
        """The record of an image, from memory, disk or computed now.

        Raises UnusableImageError when it cannot be read or has no candidates.
        """
        with using(source, item):
            name = _name(source, item)
        if name in self.kept:
            return self.kept[name]
        path = self._path(name)
        record = _read(path) or self._made(source, item, path)
        size = sum(tensor.nbytes for tensor in _pack(record).values())
        if path is not None and size <= self._room:
            self.kept[name], self._room = record, self._room - size
        return record

    def keep(self, source: GroupSource, item: int) -> bool:
        """Compute and write the record of an image, unless it is kept already: whether that was to be done.

        Raises ValueError for a store without a folder, UnusableImageError for an image that cannot be read.
        """
        with using(source, item):
            path = self._path(_name(source, item))
        if path is None:
            raise ValueError("frozen features are kept in no folder")
        if _read(path) is not None:
            return False
        self._made(source, item, path)
        return True

    def _made(self, source: GroupSource, item: int, path: Path | None) -> Record:
        """The record, computed, and written where there is a path; several processes may write the same.

        Raises ValueError under ZeRO-3, where all processes would have to compute the same at the same time.
        """
        if any(in_zero3_shards(part) for part in self.system.visual_parts):
            raise ValueError(
                f"the frozen features of image {source.image_id(item)} are not kept in {self.folder}, and ZeRO-3 "
                "shards what computes them; run first: maskselect features -c CONFIG, with a data.init_args.cache_dir"
            )
        with using(source, item):
            record = self._compute(source.image_id(item), source.load(item))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as part:
                save_file(_pack(record), part)
        return record

    def _compute(self, name: str, annotated: Annotated) -> Record:
        if self.synthetic_candidates is None:
            return compute(self.system, annotated)
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        return compute(self.system, annotated, self.synthetic_candidates.propose(annotated.masks, rng))

    def _path(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:18]}.safetensors"


def _name(source: GroupSource, item: int) -> str:
    return f"{source.image_id(item)}#{source.version(item)}"


@torch.no_grad()
def compute(system: FrozenParts, annotated: Annotated, candidates: MaskSet | None = None) -> Record:
    """Run the frozen parts on one image. candidates: masks to take in place of the proposer's."""
    found = system.proposer.propose(annotated.image) if candidates is None else candidates
    masks = resize_nearest(annotated.masks, found.image_size)
    device = next(chain(*(part.parameters() for part in system.visual_parts))).device
    pixels = torch.from_numpy(annotated.image).permute(2, 0, 1)[None].float() / 255
    everything = found.concat(MaskSet(masks, torch.ones(len(masks), dtype=torch.float32), "annotated"))
    pooled = system.pool_features(system.encode(annotated.image), everything)
    seen = (
        system.image_features(pixels.to(device))[0] if system.image_tokens else torch.zeros(0, 0, dtype=torch.float32)
    )
    return Record(
        pooled[: len(found)].half().cpu(),
        pooled[len(found) :].half().cpu(),
        seen.half().cpu(),
        pairwise_iou(found.masks, masks).half(),
        pairwise_iop(found.masks, masks).half(),
        everything.masks.flatten(1).float().mean(1).cpu(),
        annotated.extra,
        system.image_grid(annotated.image.shape[0], annotated.image.shape[1]),
    )


def fingerprint(system: FrozenParts, synthetic_candidates: CandidateSource | None = None) -> str:
    """Twelve hex digits over everything that decides a record: frozen weights, and what makes the candidates."""
    return cache_key(
        "Record",
        form=_RECORD_FORM,
        parts=system.visual_parts,
        channels=system.channels,
        image_tokens=system.image_tokens,
        candidates=synthetic_candidates or system.proposer,
    )


def _pack(record: Record) -> dict[str, Tensor]:
    own = {k: v for k, v in vars(record).items() if k != "extra" and v is not None}
    return {k: v.contiguous() for k, v in (own | {f"extra.{k}": v for k, v in record.extra.items()}).items()}


def _read(path: Path | None) -> Record | None:
    """A record that was kept; None where there is none, or its file is truncated or of another form."""
    if path is None or not path.is_file():
        return None
    try:
        return _unpack(load_file(path))
    except (SafetensorError, TypeError):
        return None


def _unpack(tensors: dict[str, Tensor]) -> Record:
    extra = {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")}
    return Record(**{k: v for k, v in tensors.items() if not k.startswith("extra.")}, extra=extra)


@dataclass(frozen=True)
class LabelRule:
    """Which candidates count as a target.

    A candidate is positive when it is the best of a target and overlaps it by at least `best_iou`, or overlaps any
    target by at least `positive_iou`. Others that overlap a target by `best_iou` or more are left out of the loss: they
    are neither right nor clearly wrong. Everything else is negative.
    """

    best_iou: float = 0.5
    positive_iou: float = 0.7

    def labels(self, overlap: Tensor, targets: tuple[int, ...]) -> Tensor:
        """(N, M) IoU and target numbers to (N,) float: 1 positive, 0 negative, -1 left out."""
        out = torch.zeros(len(overlap), dtype=torch.float32)
        if not targets or len(overlap) == 0:
            return out
        with_targets = overlap[:, list(targets)].float()
        most = with_targets.max(1).values
        out[most >= self.best_iou] = -1.0
        out[most >= self.positive_iou] = 1.0
        best = with_targets.max(0)
        out[best.indices[best.values >= self.best_iou]] = 1.0
        return out


def thinned(record: Record, most: int, rng: np.random.Generator, useful_iou: float = 0.5) -> Record:
    """A record of at most `most` candidates, if enough of them can go: only such that match no annotated mask do.

    A few crowded images would otherwise decide how long every row of a batch is.
    """
    count = len(record.candidate_features)
    if count <= most:
        return record
    matched = (record.overlap >= useful_iou).any(1).numpy()
    spare = rng.permutation(np.flatnonzero(~matched))[: max(0, most - int(matched.sum()))]
    kept = torch.from_numpy(np.sort(np.concatenate([np.flatnonzero(matched), spare])))
    return replace(
        record,
        candidate_features=record.candidate_features[kept],
        overlap=record.overlap[kept],
        inside=record.inside[kept],
        areas=torch.cat([record.areas[kept], record.areas[count:]]),
    )


def overlaps_with(record: Record, targets: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """IoU and IoP (N,) of every candidate with the union of some annotated masks.

    Where annotated masks overlap one another, what they share counts twice, up to all of the candidate.
    """
    count = len(record.candidate_features)
    if not targets or count == 0:
        return torch.zeros(count, dtype=torch.float32), torch.zeros(count, dtype=torch.float32)
    chosen, own = list(targets), record.areas[:count]
    iop = record.inside[:, chosen].float().sum(1).clamp(max=1)
    shared, wanted = iop * own, record.areas[count:][chosen].sum()
    return (shared / (own + wanted - shared).clamp(min=1e-9)).clamp(max=1), iop


def make_batch(records: list[Record], queries: list[list[Query]], captions: list[str] | None, rule: LabelRule) -> Batch:
    """Pad records and prompts of B images to one `Batch`.

    Images with fewer prompts than others are padded with labels of -1, which no loss counts.
    """
    count, prompts = max(len(r.candidate_features) for r in records), max(len(q) for q in queries)
    channels = records[0].candidate_features.shape[1]
    features = torch.zeros(len(records), max(count, 1), channels, dtype=torch.float32)
    valid = torch.zeros(features.shape[:2], dtype=torch.bool)
    labels = torch.full((len(records), prompts, features.shape[1]), -1.0, dtype=torch.float32)
    iou, iop = torch.zeros_like(labels), torch.zeros_like(labels)
    any_target = torch.zeros(labels.shape[:2], dtype=torch.bool)
    references: list[list[Tensor]] = []
    for row, (record, asked) in enumerate(zip(records, queries, strict=True)):
        own = len(record.candidate_features)
        features[row, :own], valid[row, :own] = record.candidate_features.float(), True
        references.append([record.mask_features[list(q.references)].float() for q in asked])
        for block, query in enumerate(asked):
            labels[row, block, :own] = rule.labels(record.overlap, query.targets)
            iou[row, block, :own], iop[row, block, :own] = overlaps_with(record, query.targets)
            any_target[row, block] = bool(query.targets)
    images = pad_sequence([r.image_features.float() for r in records], batch_first=True)
    grids = [r.image_grid for r in records if r.image_grid is not None]
    texts = [[q.text for q in asked] for asked in queries]
    overlaps = Overlaps(iou, iop, any_target)
    on_grids = torch.stack(grids) if grids else None
    return Batch(features, valid, images, texts, references, labels, captions, overlaps=overlaps, image_grids=on_grids)


@dataclass(frozen=True)
class CandidateItem:
    """One image of a batch. caption: "" where the system trains on prompts."""

    record: Record
    queries: list[Query]
    caption: str


class CandidatePreparer:
    """Makes batches for a candidate system out of frozen features.

    Args:
        system: whose proposer, encoders and vision tower are used.
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
        """Frozen features of an image, with at most so many prompts, or a caption.

        Raises:
            UnusableImageError: when the image cannot be used.
        """
        record = self.store.record(source, number)
        if self.max_candidates is not None:
            record = thinned(record, self.max_candidates, rng)
        with using(source, number):
            if self.captions:
                return CandidateItem(record, [Query("", (), ())], source.caption(number, record.extra, rng))
            return CandidateItem(record, source.queries(number, record.extra, prompts, rng), "")

    def collate(self, items: list[CandidateItem]) -> Batch:
        """Pad the items to one batch."""
        captions = [item.caption for item in items] if self.captions else None
        return make_batch([item.record for item in items], [item.queries for item in items], captions, self.rule)
