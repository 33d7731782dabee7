"""Selection without training: public models propose candidates, rank them, and verify each of the best ones.

    picture -> proposer -> candidates -> similarity to the prompt -> shortlist -> verifier -> masks

The similarity is that of an image-text model. The verifier is a vision-language model that answers whether a region is
part of what is requested (`systems/verifying.py`); references are outlined in colours of their own and named in the
question. This is the idea of RAS (arXiv 2506.05342), to score all candidates without generation, without its training.

Without a verifier the similarity decides, and relations to references are computed from masks
(`systems/relations.py`).

Shape letters: N candidates, P prompts, R references, D width of the embeddings, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.encoders.image_text import ImageText
from maskselect.heads.selection import select
from maskselect.ops.marking import crop, isolated, window_of
from maskselect.ops.masks import not_empty
from maskselect.structures.answer import Answer
from maskselect.structures.clip import Clip
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import LanguageModel, Proposer
from maskselect.structures.sample import MASK_REF, Prompt
from maskselect.systems.linking import ClipReading, Links, frame_numbers
from maskselect.systems.proposing import ProposingSystem
from maskselect.systems.relations import KEYS, Regions, Statement, fulfilled, stated
from maskselect.systems.verifying import Phrasing, ReadPicture, Region, Verifier

_CONTEXT = 0.3
"""Margin of a crop with its surroundings, as a share of the longer side of the box."""
_CHUNK = 16
"""Candidates whose crops are in memory at once."""
_QUESTIONS = 8
"""Questions about a view of a candidate in one row."""
TEMPLATE = "a photo of {}"
OTHERS = (
    "a photo of something else", "a photo of an object", "a photo of a part of an object", "a photo of a texture",
    "a photo of a wall", "a photo of the ground", "a photo of the sky", "a photo of a shadow",
)  # fmt: skip
"""Texts that a prompt must exceed where no verifier decides; chosen by hand, not by measurement."""


@dataclass(frozen=True)
class PictureReading:
    """A picture, read.

    Attributes:
        image: (H, W, 3) uint8.
        pool: the candidates, on the CPU.
        embeddings: of the candidates, (N, D).
        picture: the picture in the verifier; None without one, or without candidates.
    """

    image: np.ndarray
    pool: MaskSet
    embeddings: Tensor
    picture: ReadPicture | None


class ZeroShot(ProposingSystem):
    """Public models together, without training.

    Args:
        proposer: proposes the candidates.
        similarity: ranks candidates by their similarity to a text; None leaves them in the order of the proposer.
        lmm: verifies the shortlist; None leaves the decision to similarity and relations of masks.
        shortlist: number of candidates that are verified for a prompt.
        duplicates_iou: a mask is removed from a group if its IoU with a better one exceeds this; None for none.
        picture_side, view_side, crop_side, rows, phrasing: see `Verifier`.

    Raises:
        ValueError: if the shortlist is empty, or there is neither a similarity nor a language model.
    """

    name = "zero-shot"
    title = "Zero-shot selection"
    paper = ""
    summary = "public models propose, rank and verify candidates, without training"
    uses_threshold = True
    answers_prompts = True

    def __init__(
        self,
        proposer: Proposer,
        similarity: ImageText | None,
        lmm: LanguageModel | None = None,
        shortlist: int = 24,
        duplicates_iou: float | None = 0.7,
        picture_side: int = 1024,
        view_side: int = 448,
        crop_side: int = 224,
        rows: int = 8,
        phrasing: Phrasing = "full",
    ) -> None:
        if similarity is None and lmm is None:
            raise ValueError("similarity and lmm are both missing; expected at least one of them")
        if shortlist < 1 or rows < 1:
            raise ValueError(f"shortlist {shortlist} and rows {rows}; expected at least 1 each")
        super().__init__(proposer)
        self.similarity, self.shortlist, self.duplicates_iou = similarity, shortlist, duplicates_iou
        self.verifier = None if lmm is None else Verifier(lmm, picture_side, view_side, crop_side, rows, phrasing)
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> PictureReading | ClipReading:
        """See `structures.protocols.System`.

        Raises:
            ValueError: for extra candidates of a clip, and for a clip without a similarity, which links masks.
        """
        if not isinstance(visual, np.ndarray):
            if self.similarity is None:
                raise ValueError(f"{self.title} without a similarity reads pictures only; expected no clip")
            if extra is not None:
                raise ValueError("a clip takes no extra candidates; expected them for a picture")
            return ClipReading(visual)
        pool = self.pool_of(visual, extra)
        pool = pool.keep(not_empty(pool.masks))
        pool = MaskSet(pool.masks.cpu(), pool.scores.float().cpu(), pool.source)
        read = self.verifier.read(visual) if self.verifier is not None and len(pool) else None
        return PictureReading(visual, pool, self.embeddings_of(visual, pool.masks), read)

    def embeddings_of(self, image: np.ndarray, masks: Tensor) -> Tensor:
        """Embeddings of regions: of each alone on grey, and with its surroundings, their mean. (N, H, W) to (N, D).

        Without a similarity D is 0.
        """
        if self.similarity is None:
            return torch.zeros(len(masks), 0, dtype=torch.float32)
        rows = [torch.zeros(0, self.similarity.channels, dtype=torch.float32)]
        for some in masks.cpu().split(_CHUNK):
            regions = list(some.numpy())
            alone = self.similarity.images([isolated(image, mask) for mask in regions])
            around = self.similarity.images([crop(image, window_of(mask, _CONTEXT)) for mask in regions])
            rows.append(F.normalize(alone + around, dim=-1))
        return torch.cat(rows)

    @torch.no_grad()
    def answer(
        self, reading: PictureReading | ClipReading, prompts: list[Prompt], threshold: float | None
    ) -> list[Answer]:
        """One answer per prompt; the pool holds all candidates, and those that were not verified have the score 0.

        Args:
            reading: result of `read`.
            prompts: their reference masks have the size of the picture.
            threshold: lowest score of a selected candidate; None is 0.5.

        Raises:
            ValueError: for a prompt that does not fit into the language model's context or has too many references;
                without a verifier also for references whose relation is not understood; and for references in a clip.
        """
        cut = 0.5 if threshold is None else threshold
        if isinstance(reading, PictureReading):
            answers = []
            for scores in self._scores(reading, prompts):
                group = select(reading.pool.masks, scores, scores >= cut, self.duplicates_iou)
                answers.append(Answer(reading.pool.masks[group], scores[group], reading.pool, scores))
            return answers
        if any(len(prompt.references) for prompt in prompts):
            raise ValueError(f"{self.title} reads {MASK_REF} in pictures only; expected a prompt without, for a clip")
        clip = reading.clip
        links = [Links(len(clip), clip.size) for _ in prompts]
        for number in frame_numbers(clip):
            frame = self.read(clip[number])
            assert isinstance(frame, PictureReading)
            relative = frame.embeddings - frame.embeddings.mean(0, keepdim=True)
            for link, scores in zip(links, self._scores(frame, prompts), strict=True):
                group = select(frame.pool.masks, scores, scores >= cut, self.duplicates_iou)
                link.add(number, frame.pool.masks[group], scores[group], relative[group])
        return [link.answer() for link in links]

    def _scores(self, reading: PictureReading, prompts: list[Prompt]) -> list[Tensor]:
        """For each prompt the scores of all candidates, (N,) float32 in [0, 1]."""
        statements = [stated(prompt.text) for prompt in prompts]
        if self.verifier is None:
            return [
                self._compared(reading, prompt, statement)
                for prompt, statement in zip(prompts, statements, strict=True)
            ]
        questions = [self.verifier.question(prompt.text) for prompt in prompts]
        scores = [torch.zeros(len(reading.pool), dtype=torch.float32) for _ in prompts]
        if reading.picture is None:
            return scores
        shortlists = [self.shortlisted(reading, statement) for statement in statements]
        work = self._work(prompts, shortlists)
        from maskselect.backends.progress import track  # noqa: PLC0415  slow to import

        passes = range(0, len(work), self.verifier.rows)
        for start in track(passes, len(passes), "Verifying", "passes"):  # the views of a pass are in memory at once
            some = work[start : start + self.verifier.rows]
            regions = [self._region(reading, prompts[rows[0]], candidate) for candidate, rows in some]
            texts = [[questions[row] for row in rows] for _, rows in some]
            found = self.verifier.answers(reading.picture, regions, texts).tolist()
            asked = [(candidate, row) for candidate, rows in some for row in rows]
            for (candidate, row), score in zip(asked, found, strict=True):
                scores[row][candidate] = score
        return scores

    def _work(self, prompts: list[Prompt], shortlists: list[list[int]]) -> list[tuple[int, list[int]]]:
        """Candidates, each with the numbers of prompts that ask about the same view of it, at most `_QUESTIONS`."""
        asked: dict[tuple[int, int | None], list[int]] = {}
        for row, (prompt, shortlist) in enumerate(zip(prompts, shortlists, strict=True)):
            for candidate in shortlist:
                asked.setdefault((candidate, row if len(prompt.references) else None), []).append(row)
        return [
            (candidate, rows[start : start + _QUESTIONS])
            for (candidate, _), rows in asked.items()
            for start in range(0, len(rows), _QUESTIONS)
        ]

    def _region(self, reading: PictureReading, prompt: Prompt, candidate: int) -> Region:
        """What is shown of a candidate for a prompt."""
        assert self.verifier is not None
        mask, references = reading.pool.masks[candidate].numpy(), list(prompt.references.cpu().numpy())
        view = self.verifier.view(reading.image, mask, references)
        return Region(view, self.verifier.crop(reading.image, mask), candidate, bool(references))

    def shortlisted(self, reading: PictureReading, statement: Statement) -> list[int]:
        """The candidates that are verified, best first.

        By similarity, or in the order of the proposer's scores if no noun is stated or there is no similarity.
        """
        ranks = reading.pool.scores
        if statement.noun and self.similarity is not None:
            ranks = self.similarity.logits(reading.embeddings, self.similarity.texts([_photo_of(statement.noun)]))[0]
        return torch.sort(ranks, descending=True, stable=True).indices[: self.shortlist].tolist()

    def _compared(self, reading: PictureReading, prompt: Prompt, statement: Statement) -> Tensor:
        """Scores without a verifier: the probability of the noun among `OTHERS`, 0 where a clause does not hold."""
        if statement.unread:
            raise ValueError(
                f"prompt {prompt.text!r}: without a language model the relation to {MASK_REF} is not understood; "
                f"expected one of: {', '.join(KEYS)}"
            )
        assert self.similarity is not None
        scores = torch.ones(len(reading.pool), dtype=torch.float32)
        if statement.noun and len(reading.pool):
            texts = self.similarity.texts([_photo_of(statement.noun), *OTHERS])
            scores = self.similarity.logits(reading.embeddings, texts).softmax(0)[0]
        if statement.clauses and len(reading.pool):
            masks = prompt.references.cpu()
            references = Regions(masks, reading.image, self.embeddings_of(reading.image, masks))
            candidates = Regions(reading.pool.masks, reading.image, reading.embeddings)
            for clause in statement.clauses:
                scores = scores * fulfilled(candidates, references, clause)
        return scores


def _photo_of(noun: str) -> str:
    return TEMPLATE.format(noun)
