"""Training batches for the verifier: outlined pictures and crops of candidates, with questions and answers.

What the frozen vision tower makes of a picture, of the crops and of the views of its candidates is computed once and
cached on disk. The candidates of a picture and the references that its views show are therefore drawn once; the prompts
are new at each visit.

Shape letters: N candidates, M annotated masks, V views of a candidate, T image tokens, E width of the tower.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.marking import scaled_down
from maskselect.ops.masks import not_empty, resize_nearest
from maskselect.ops.overlap import pairwise_iou
from maskselect.structures.by_value import ByValue
from maskselect.structures.groups import Annotated, CandidateSource, GroupSource, PrepareSettings, Query, using
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer
from maskselect.systems.preparing import LabelRule
from maskselect.systems.record_files import RecordFiles, record_name, rng_of
from maskselect.systems.verifying import Verifier

_RECORD_FORM = 1  # to increment whenever the content of a record changes
_MATCHED = 0.7
"""IoU with an annotated mask from which a candidate can be a positive one."""


@dataclass(eq=False, repr=False)
class RegionBatch(ByValue):
    """Pictures with regions and questions about them. Not frozen, because Lightning moves batches by writing into them.

    Attributes:
        pictures: (B, T, E), output of the vision tower for each of B pictures.
        views: for each picture (R, T, E), of the picture with the outlined region.
        crops: for each picture (R, T, E), of the region up close.
        questions: for each picture and region the questions.
        labels: for each picture (Q,) float32, 1 for yes and 0 for no, of all questions in their order.
        prompts: for each picture (Q,) int64, the number of the prompt of each question.
    """

    pictures: Tensor
    views: list[Tensor]
    crops: list[Tensor]
    questions: list[list[list[str]]]
    labels: list[Tensor]
    prompts: list[Tensor]


@dataclass(frozen=True)
class RegionRecord:
    """What is cached of a picture.

    Attributes:
        picture: (T, E) float16.
        crops: (N, T, E) float16.
        views: (V, N, T, E) float16; the first shows no references.
        references: (V - 1, R) int64, the annotated masks that the further views show as references, padded with -1.
        overlap: (N, M) float16, IoU of candidates and annotated masks.
        extra: `Annotated.extra`.
    """

    picture: Tensor
    crops: Tensor
    views: Tensor
    references: Tensor
    overlap: Tensor
    extra: dict[str, Tensor]

    def view_of(self, references: tuple[int, ...]) -> int | None:
        """The number of the views that show these references; None if there are none."""
        if not references:
            return 0
        known = [tuple(number for number in row if number >= 0) for row in self.references.tolist()]
        return known.index(references) + 1 if references in known else None


class Verifying(Protocol):
    """The parts of a system that determine records."""

    proposer: Proposer
    verifier: Verifier | None

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """Frozen networks that determine the features."""
        ...


class RegionPreparer:
    """Makes batches of regions with questions.

    Args:
        system: provides proposer and verifier.
        settings: see `PrepareSettings`; `max_candidates` has no effect.
        training: False for validation, which has candidates of the proposer.
        candidates: upper bound of the candidates of a picture. Half of them match annotated masks, where there are so
            many; the others are drawn from the rest.
        references: number of references (or pairs of them) of a picture that views show. Prompts with others are left
            out.
    """

    def __init__(
        self, system: Verifying, settings: PrepareSettings, training: bool, candidates: int, references: int
    ) -> None:
        assert system.verifier is not None
        self.system, self.verifier = system, system.verifier
        self.rule = LabelRule(settings.best_iou, settings.positive_iou)
        self.candidates, self.references = candidates, references
        self.synthetic: CandidateSource | None = settings.synthetic_candidates if training else None
        self.folder = settings.cache_dir / self._fingerprint() if settings.cache_dir is not None else None
        self.files = RecordFiles(RegionRecord, self.folder)

    def _fingerprint(self) -> str:
        """A digest of everything that determines a record."""
        sides = {name: getattr(self.verifier, name) for name in ("picture_side", "view_side", "crop_side")}
        return cache_key(
            "RegionRecord",
            form=_RECORD_FORM,
            parts=self.system.visual_parts,
            source=self.synthetic or self.system.proposer,
            candidates=self.candidates,
            references=self.references,
            **sides,
        )

    def keep(self, source: GroupSource, number: int) -> bool:
        """See `structures.protocols.StoringPreparer`.

        Raises:
            ValueError: without a folder.
            UnusableImageError: when the picture cannot be used.
        """
        return self.files.keep(record_name(source, number), lambda: self._compute(source, number))

    def record(self, source: GroupSource, number: int) -> RegionRecord:
        """The record of a picture, from disk or newly computed.

        Raises:
            UnusableImageError: when the picture cannot be read or has no candidates.
        """
        return self.files.get(record_name(source, number), lambda: self._compute(source, number))

    def _compute(self, source: GroupSource, number: int) -> RegionRecord:
        rng = rng_of(record_name(source, number))
        with using(source, number):
            annotated = source.load(number)
            asked = source.queries(number, annotated.extra, 8 * max(1, self.references), rng)
            return self._seen(annotated, asked, rng)

    @torch.no_grad()
    def _seen(self, annotated: Annotated, asked: Sequence[Query], rng: np.random.Generator) -> RegionRecord:
        """Run the frozen parts on a picture. asked: prompts, of which the first references are shown."""
        pool = self._pool(annotated, rng)
        masks = resize_nearest(annotated.masks, pool.image_size)
        overlap = pairwise_iou(pool.masks, masks)
        kept = _drawn(overlap, self.candidates, rng)
        regions, image = list(pool.masks[kept].cpu().numpy()), annotated.image
        pointed = list(dict.fromkeys(query.references for query in asked if query.references))[: self.references]
        sets = [[], *([masks[number].cpu().numpy() for number in chosen] for chosen in pointed)]
        views = [self.verifier.view(image, mask, references) for references in sets for mask in regions]
        crops = [self.verifier.crop(image, mask) for mask in regions]
        small = scaled_down(image, self.verifier.picture_side)
        picture, *others = [one.half().cpu() for one in self.verifier.image_features([small, *crops, *views])]
        count = len(regions)
        return RegionRecord(
            picture,
            torch.stack(others[:count]),
            torch.stack(others[count:]).unflatten(0, (len(sets), count)),
            _padded(pointed),
            overlap[kept].half().cpu(),
            annotated.extra,
        )

    def _pool(self, annotated: Annotated, rng: np.random.Generator) -> MaskSet:
        if self.synthetic is not None:
            pool = self.synthetic.propose(annotated.masks, rng)
        else:
            pool = self.system.proposer.propose(annotated.image)
        pool = pool.keep(not_empty(pool.masks))
        if not len(pool):
            raise ValueError("the picture has no candidates; expected at least one")
        return pool

    def prepare(self, source: GroupSource, number: int, rng: np.random.Generator, prompts: int) -> RegionBatch:
        """One picture with at most `prompts` prompts; unclear candidates are not asked, see `LabelRule`.

        Raises:
            UnusableImageError: when the picture cannot be used.
        """
        record = self.record(source, number)
        with using(source, number):
            queries = source.queries(number, record.extra, prompts, rng)
        asked: dict[tuple[int, int], list[tuple[int, str, float]]] = {}
        for prompt, query in enumerate(queries):
            view = record.view_of(query.references)
            if view is None or query.answer is not None:
                continue
            question = self.verifier.question(query.text)
            for candidate, label in enumerate(self.rule.labels(record.overlap, query.targets).tolist()):
                if label >= 0:
                    asked.setdefault((view, candidate), []).append((prompt, question, label))
        regions = sorted(asked)
        views = [record.views[view, candidate] for view, candidate in regions]
        crops = [record.crops[candidate] for _, candidate in regions]
        none = record.crops[:0]
        pairs = [asked[region] for region in regions]
        return RegionBatch(
            record.picture[None].float(),
            [torch.stack(views).float() if views else none.float()],
            [torch.stack(crops).float() if crops else none.float()],
            [[[question for _, question, _ in own] for own in pairs]],
            [torch.tensor([label for own in pairs for _, _, label in own], dtype=torch.float32)],
            [torch.tensor([prompt for own in pairs for prompt, _, _ in own], dtype=torch.int64)],
        )

    def collate(self, items: list[RegionBatch]) -> RegionBatch:
        """Several pictures as one batch."""
        return RegionBatch(
            torch.cat([item.pictures for item in items]),
            [item.views[0] for item in items],
            [item.crops[0] for item in items],
            [item.questions[0] for item in items],
            [item.labels[0] for item in items],
            [item.prompts[0] for item in items],
        )


def _drawn(overlap: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Numbers of at most `count` candidates, of which half match annotated masks if possible: (N, M) IoU to (n,)."""
    matched = (overlap >= _MATCHED).any(1).cpu().numpy()
    first, second = (rng.permutation(np.flatnonzero(some)) for some in (matched, ~matched))
    others = min(len(second), max(count // 2, count - len(first)))
    chosen = np.concatenate([first[: count - others], second[:others]])
    return torch.from_numpy(np.sort(chosen))


def _padded(references: Sequence[tuple[int, ...]]) -> Tensor:
    """Tuples of numbers as rows (V - 1, R) int64, padded with -1."""
    out = torch.full((len(references), max(map(len, references), default=0)), -1, dtype=torch.int64)
    for row, numbers in enumerate(references):
        out[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    return out
