"""Text4Seg (arXiv 2410.09855) and Text4Seg++ (arXiv 2509.06321): a language model writes masks as text.

    image, question -> language model -> text -> codec -> masks

Image-wise descriptors (`codecs/descriptors.py`) make it Text4Seg, box-wise descriptors with bricks
(`codecs/boxwise.py`) Text4Seg++. Three things are ours: a `<mask-ref>` in a prompt becomes a mask token, as in RAS;
each mask has a score, from the probabilities of its tokens; decoding may be constrained to the grammar of the codec. On
a clip, each frame is answered alone, and masks are linked to objects (`systems/linking.py`).

Shape letters: B images, P prompts, R references, T image tokens, E width of the vision tower, M masks, H W pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from maskselect.backends import checkpoints, needs
from maskselect.backends.weightless import reads_weights
from maskselect.codecs import labels as label_texts
from maskselect.heads.binary import BinaryHead
from maskselect.ops.images import resized_image
from maskselect.ops.pooling import cell_weights
from maskselect.structures.answer import Answer
from maskselect.structures.batches import TextBatch
from maskselect.structures.clip import Clip
from maskselect.structures.codec import Codec
from maskselect.structures.groups import GroupSource, PrepareSettings, Query, TextSource, using
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import FRAME_TOKENS, PROMPT_TOKENS, Arguments, Need
from maskselect.structures.protocols import LanguageModel
from maskselect.structures.sample import Prompt
from maskselect.systems import text_questions
from maskselect.systems.answering import LookAhead, forced_answers, generate_texts
from maskselect.systems.language_system import LanguageSystem, grid_of
from maskselect.systems.linking import ClipReading, Links, frame_numbers
from maskselect.systems.picture_batches import TextItem, collate_texts
from maskselect.systems.reading import Reader, batch_without_candidates
from maskselect.systems.scoring import ReadImages, in_passes, read_images
from maskselect.systems.text_questions import InstanceOrder, Phrasing
from maskselect.systems.writing import GrammarProcessor, TokenTexts
from maskselect.tokens import sequence
from maskselect.tokens.mask_tokenizer import MaskTokenizer
from maskselect.tokens.sequence import place_number

MaskScore = Literal["foreground", "opening", "coverage"]
PAPERS = {"text4seg": ("Text4Seg", "2410.09855"), "text4segpp": ("Text4Seg++", "2509.06321")}


@dataclass(frozen=True)
class PictureReading:
    """A picture, read.

    Attributes:
        images: its prefix and cache.
        features: (T, E) of the vision tower.
        size: (H, W) of the picture.
    """

    images: ReadImages
    features: Tensor
    size: tuple[int, int]


class Text4Seg(LanguageSystem):
    """A language model that answers with masks as text.

    Args:
        lmm: the language model; with LoRA as published, or without, which trains all of it. With LoRA, token embeddings
            and LM head train only if there are new tokens.
        codec: how masks are written.
        variant: name of the system: "text4seg", or "text4segpp" with a box-wise codec.
        side: pictures become squares of this side, without padding, as in the released Text4Seg for LLaVA; the cells of
            the codec then match the image tokens.
        label: label of a mask in the text. "prompt" is the prompt, as published for referring expressions, but `roi0`,
            `roi1`, … for questions to Text4Seg++; "region" writes these for all prompts (box-wise codecs only); any
            other text is used for all masks. Where a prompt lists classes, these are the labels.
        phrasing: "sentences" or "plain", see `systems/text_questions.py`.
        instance_order: order of instances in an answer, see `systems/text_questions.py`; the papers are silent on it.
        longest: maximum length of an answer in tokens.
        score: score of a mask (the papers have none): "foreground", the mean probability of its foreground's tokens; or
            "opening", the probability of the token with which its text begins. With a box-wise codec that is the
            probability that there is one more instance, which tells best whether a prompt has a target. With run
            lengths a number before that token has decided, so "coverage" tells it best: the highest prediction of an
            image token in the mask, see `cell_weight`.
        constrained: allow only tokens that the grammar of the codec permits; expects phrasing "plain".
        extra_tokens: further tokens to add to the vocabulary, such as brackets and line breaks, which shorten answers
            of a compact tokenizer.
        image_place: "before_prompt", as published; or "after_prompt" (ours), where each image token depends on the
            prompt and on all others, at the price of reading the image tokens for every prompt.
        cell_layer: number of layers behind which each image token of "after_prompt" predicts how much of its cell the
            answer covers (ours); answers about pictures return it as `Answer.coverage`.
        cell_positions: learned embeddings of row and column are added to image tokens, and to each token of an answer
            those of the cell that is written next (ours). They begin at zero, so a checkpoint without them can be a
            start.
        cell_weight: weight of the binary cross entropy of this prediction beside that of the text; 0 is without.
        look_ahead: number of cells whose prediction each token of an answer sees, from the cell that is written next on
            and within its row (ours); 0 is without. It needs cell_positions and cell_weight.
        background_share: share of the image tokens without any annotated mask that a training step reads, for
            "after_prompt"; fewer make it faster (ours).
        start: checkpoint to start from: of this system; of the other variant, without the tokens that it added; or of
            RAS with the same encoders and sizes, whose language model and mask projector are taken, the latter also for
            image tokens.

    Raises:
        ValueError: for settings that exclude each other, or a checkpoint that does not fit.
        FileNotFoundError: if `start` does not exist.
    """

    summary = "a language model writes the masks as text, which is decoded"
    runs_every_part = True
    uses_threshold = True
    answers_prompts = True

    def __init__(
        self,
        lmm: LanguageModel,
        codec: Codec,
        variant: Literal["text4seg", "text4segpp"] = "text4segpp",
        side: int = 256,
        label: str = "prompt",
        phrasing: Phrasing = "plain",
        instance_order: InstanceOrder = "left_to_right",
        longest: int = 512,
        score: MaskScore = "foreground",
        constrained: bool = False,
        extra_tokens: Sequence[str] = (),
        image_place: Literal["before_prompt", "after_prompt"] = "before_prompt",
        cell_positions: bool = False,
        cell_layer: int = 4,
        cell_weight: float = 0.0,
        look_ahead: int = 0,
        background_share: float = 1.0,
        start: str | None = None,
    ) -> None:
        if image_place != "after_prompt" and (cell_weight > 0 or background_share < 1):
            raise ValueError(
                "image tokens before the prompt are read once for all prompts and cannot depend on them; expected "
                "image_place 'after_prompt', or neither cell_weight nor background_share"
            )
        layers: Any = lmm.language_model.layers
        if not 0 <= background_share <= 1 or (cell_weight > 0 and not 1 <= cell_layer <= len(layers)):
            raise ValueError(
                f"background_share {background_share} and cell_layer {cell_layer}; expected a share in [0, 1] and one "
                f"of {len(layers)} layers"
            )
        if constrained and phrasing != "plain":
            raise ValueError(f"constrained decoding writes masks alone; expected phrasing 'plain', got {phrasing!r}")
        if look_ahead and not (cell_positions and cell_weight > 0):
            raise ValueError(
                f"look_ahead {look_ahead} shows what image tokens predict about the next cell; expected cell_positions "
                "and a cell_weight above 0"
            )
        if score == "coverage" and cell_weight == 0:
            raise ValueError("score 'coverage' is what image tokens predict; expected a cell_weight above 0")
        words_before = len(lmm.tokenizer)
        for token in (*codec.tokens, *extra_tokens):
            lmm.add_token(token)
        after = image_place == "after_prompt"
        grid = None
        if cell_positions:
            if lmm.images_on_grids:
                raise ValueError(
                    "a language model that puts image tokens on grids has positions; expected no cell_positions"
                )
            grid = grid_of(lmm, side)
        tokenizer = MaskTokenizer(lmm.vision_width, lmm.width)
        super().__init__(Reader(lmm, tokenizer, after, grid, look_ahead), side, words_before)
        self.name = variant
        self.title, self.paper = PAPERS[variant]
        self.cell_layer, self.cell_weight, self.background_share = cell_layer, cell_weight, background_share
        self.cell_head = BinaryHead(lmm.width) if cell_weight > 0 else None
        self.codec, self.label, self.phrasing = codec, label, phrasing
        self.longest, self.constrained, self.instance_order, self.score = longest, constrained, instance_order, score
        self.train_words(bool(codec.tokens or extra_tokens))
        if start is not None and reads_weights():
            self._start(start)
        self.train()

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The checkpoint that it starts from, and weights of a language model that would stay random."""
        found = needs.checkpoint(arguments.get("start"), "where training starts from")
        return found if arguments.get("start") else found + needs.random_language_model(arguments)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        prompt = PROMPT_TOKENS + self.longest // 4
        if self.reader.image_after_prompt:
            return images * FRAME_TOKENS + prompts * (prompt + self.lmm.most_image_tokens)
        return images * (FRAME_TOKENS + self.lmm.most_image_tokens) + prompts * prompt

    @cached_property
    def texts(self) -> TokenTexts:
        """The texts of the language model's tokens."""
        return TokenTexts(self.lmm)

    def _read(self, features: Tensor, prompts: list[list[str]], references: list[list[Tensor]]) -> ReadImages:
        grid = self.lmm.image_grid(self.side, self.side)
        grids = None if grid is None else torch.tensor([grid] * len(features), dtype=torch.int64)
        batch = batch_without_candidates(features, grids, features.shape[-1], prompts, references)
        return read_images(self.reader, batch)

    # --- inference ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> PictureReading | ClipReading:
        """See `structures.protocols.System`.

        Raises:
            ValueError: for extra candidates.
        """
        if extra is not None:
            raise ValueError(f"{self.title} has no candidates; expected no extra ones")
        if not isinstance(visual, np.ndarray):
            return ClipReading(visual)
        features = self.image_features(resized_image(visual, (self.side, self.side))[None])
        return PictureReading(self._read(features, [[]], [[]]), features[0], (visual.shape[0], visual.shape[1]))

    @torch.no_grad()
    def answer(
        self, reading: PictureReading | ClipReading, prompts: list[Prompt], threshold: float | None
    ) -> list[Answer]:
        """See `structures.protocols.System`; a mask below the threshold is left out."""
        if isinstance(reading, PictureReading):
            references = [self.pooled(reading.features, prompt.references) for prompt in prompts]
            return self._answers(reading, [prompt.text for prompt in prompts], references, threshold)
        clip = reading.clip
        texts = [prompt.text for prompt in prompts]

        def features_of(frame: int) -> Tensor:
            return self.image_features(resized_image(clip[frame], (self.side, self.side))[None])

        pooled = [self.references_of(prompt, features_of) for prompt in prompts]
        links = [Links(len(clip), clip.size) for _ in prompts]
        written: list[list[str]] = [[] for _ in prompts]
        failures: list[str | None] = [None for _ in prompts]
        repairs, cut = [0 for _ in prompts], [False for _ in prompts]
        for number in frame_numbers(clip):
            frame = self.read(clip[number])
            assert isinstance(frame, PictureReading)
            relative = frame.features - frame.features.mean(0, keepdim=True)
            answers = self._answers(frame, texts, pooled, threshold)
            for row, answer in enumerate(answers):
                assert isinstance(answer.masks, Tensor)
                links[row].add(number, answer.masks, answer.scores, self.pooled(relative, answer.masks).cpu())
                written[row].append(answer.text or "")
                if answer.failure is not None and failures[row] is None:
                    failures[row] = f"frame {number}: {answer.failure}"
                repairs[row], cut[row] = repairs[row] + answer.repairs, cut[row] or answer.cut
        texts = ["\n".join(lines) for lines in written]
        rows = zip((link.answer() for link in links), texts, failures, repairs, cut, strict=True)
        return [replace(one, text=t, failure=f, repairs=r, cut=c) for one, t, f, r, c in rows]

    def _answers(
        self, reading: PictureReading, prompts: list[str], references: list[Tensor], threshold: float | None
    ) -> list[Answer]:
        device = reading.features.device
        none = reading.features.new_zeros(0, reading.features.shape[-1])
        tokens = self.reader.mask_tokenizer(torch.cat([none, *(r.to(device) for r in references)]))
        groups = [text_questions.group_of(text) for text in prompts]
        pairs = zip(prompts, groups, strict=True)
        questions = [text_questions.question(text, group, self.phrasing, None) for text, group in pairs]
        answers: list[Answer] = []
        for some, images in in_passes(reading.images, questions, tokens):
            asked = prompts[len(answers) : len(answers) + len(some)]
            process = self._processor(asked) if self.constrained else None
            places = self._places_written()
            run = self.hidden_and_cells if self.cell_head else None
            ahead = self._look_ahead()
            written = generate_texts(
                self.reader, images, some, self.longest, process=process, cells=places, run=run, ahead=ahead
            )
            coverage = self._coverage(written.image_states) or [None] * len(some)
            for prompt, ids, states, cells in zip(asked, written.ids, written.states, coverage, strict=True):
                answers.append(self._decoded(prompt, ids, states, cells, reading.size, threshold))
        return answers

    def _coverage(self, states: list[Tensor] | None) -> list[Tensor | None]:
        """What image tokens predict, see `Answer.coverage`; empty without predictions."""
        if self.cell_head is None or states is None:
            return []
        return [self.cell_head(own).float().sigmoid().reshape(self.image_grid()).cpu() for own in states]

    def _decoded(
        self,
        prompt: str,
        ids: list[int],
        states: Tensor,
        coverage: Tensor | None,
        size: tuple[int, int],
        threshold: float | None,
    ) -> Answer:
        """The masks that an answer describes, by falling score."""
        text, cut = self.texts.decode(ids), len(ids) >= self.longest
        if text_questions.group_of(prompt) == "text" and "<seg>" not in text:
            none = torch.zeros(0, *size, dtype=torch.bool)
            return Answer(none, torch.zeros(0, dtype=torch.float32), text=text.strip(), cut=cut, coverage=coverage)
        decoded = self.codec.decode(text, size, self._labels(prompt, None))
        if self.score == "coverage" and coverage is not None:
            scores = (cell_weights(decoded.masks, self.image_grid()) * coverage).flatten(1).amax(1)
        else:
            scores = self._scores(ids, states, text, decoded.labels)
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] >= (0.0 if threshold is None else threshold)]
        classes = {label_texts.written(name): name for name in text_questions.listed_classes(prompt)}
        return Answer(
            decoded.masks[order],
            scores[order],
            text=text.strip(),
            failure=decoded.failure,
            repairs=decoded.repairs,
            cut=cut,
            labels=tuple(classes[label_texts.written(decoded.labels[n])] for n in order.tolist()) if classes else None,
            coverage=coverage,
        )

    def _places_written(self) -> Callable[[list[int], int], list[int]] | None:
        """Gives the cells that follow the last tokens of an answer, by number; None without positions."""
        if self.reader.row_positions is None:
            return None
        grid, shape = self.image_grid(), self.codec.shape

        def numbers(ids: list[int], count: int) -> list[int]:
            ends = list(accumulate(len(self.texts.texts[number]) for number in ids))[-count:]
            cells = self.codec.next_cells(self.texts.decode(ids), ends)
            scaled = [(r * grid[0] // shape[0], c * grid[1] // shape[1]) for r, c in cells]  # below 0 stays below 0
            return [place_number(r, c, grid) for r, c in scaled]

        return numbers

    def _look_ahead(self) -> LookAhead | None:
        """Gives what image tokens predict from each cell on, see `sequence.windows`; None without `look_ahead`."""
        head, projection = self.cell_head, self.reader.look_ahead
        if head is None or projection is None:
            return None
        height, width = self.image_grid()

        def windows(states: list[Tensor], numbers: list[list[int]]) -> Tensor:
            cells = states[0].new_zeros(len(states), height * width, dtype=torch.float32)
            for row, (own, kept) in enumerate(zip(states, numbers, strict=True)):
                cells[row, kept] = head(own).float().sigmoid()
            return sequence.windows(cells.reshape(-1, height, width), projection.in_features)

        return windows

    def _scores(self, ids: list[int], states: Tensor, text: str, labels: Sequence[str]) -> Tensor:
        """The score of each mask, see `Text4Seg`: (M,) in [0, 1]."""
        if not labels:
            return torch.zeros(0, dtype=torch.float32)
        if self.score == "opening":
            spans = [[(start, start + 1)] for start in self.codec.openings(text, labels)]
        else:
            spans = self.codec.foreground(text, labels)
        probabilities = self.lmm.token_logits(states).float().softmax(-1)
        sure = probabilities[torch.arange(len(ids), dtype=torch.int64), torch.tensor(ids, dtype=torch.int64)].cpu()
        ends = torch.tensor([len(self.texts.texts[number]) for number in ids], dtype=torch.int64).cumsum(0)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
        scores = []
        for runs in spans:
            inside = torch.zeros(len(ids), dtype=torch.bool)
            for start, end in runs:
                inside |= (starts < end) & (ends > start)
            scores.append(sure[inside].mean())
        return torch.stack(scores).clamp(0, 1)

    def _processor(self, prompts: list[str]) -> GrammarProcessor:
        words = [text_questions.group_of(prompt) == "text" for prompt in prompts]
        pairs = zip(prompts, words, strict=True)
        grammars = [None if free else self.codec.grammar(self._labels(prompt, None)) for prompt, free in pairs]
        return GrammarProcessor(grammars, self.texts)

    def _labels(self, prompt: str, masks: int | None) -> list[str] | None:
        """Labels of so many masks; with None those that may occur, None for any."""
        return text_questions.labels_of(prompt, text_questions.group_of(prompt), self.label, self.codec, masks)

    # --- training -----------------------------------------------------------------------------------------------

    def preparer(self, settings: PrepareSettings, training: bool) -> "AnswerPreparer":
        """Pictures with questions and answers."""
        return AnswerPreparer(self, training)

    def written(self, query: Query, masks: Tensor, rng: np.random.Generator | None) -> tuple[str, str]:
        """Question and answer of a query whose targets are (M, H, W) bool; see `text_questions.written`."""
        return text_questions.written(query, masks, self.codec, self.label, self.phrasing, rng, self.instance_order)

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        """Cross entropy "text" of the tokens of answers, and "cells" of the image tokens; see `cell_weight`."""
        features = self.image_features(batch.images)
        if self.training:
            self.reader.mask_tokenizer.fit_statistics(rearrange(features, "b t e -> (b t) e"))
        references = [
            [self.pooled(row, masks) for masks in own] for row, own in zip(features, batch.references, strict=True)
        ]
        questions = [[question for question, _ in texts] for texts in batch.texts]
        answers = [[answer for _, answer in texts] for texts in batch.texts]
        images = self._read(features, questions, references)
        run = self.hidden_and_cells if self.cell_head else None
        orders = [kept.tolist() for kept in batch.kept] if batch.kept else None
        forced = forced_answers(
            self.reader,
            images,
            questions,
            answers,
            -1,
            encode=self.texts.encode,
            run=run,
            orders=orders,
            cells=self._places_written(),
            ahead=self._look_ahead(),
        )
        assert forced.loss is not None and forced.accuracy is not None
        scalars = {"loss": forced.loss, "text": forced.loss, "accuracy": forced.accuracy}
        if self.cell_head and forced.image_states is not None and batch.cells is not None:
            kept = batch.kept or [torch.arange(cells.shape[1], dtype=torch.int64) for cells in batch.cells]
            covered = [row for cells, some in zip(batch.cells, kept, strict=True) for row in cells[:, some]]
            logits = self.cell_head(torch.cat(forced.image_states)).float()
            cells = F.binary_cross_entropy_with_logits(logits, torch.cat(covered))
            ious = [
                _iou(row > 0.5, chosen)
                for row, chosen in zip(covered, (logits > 0).split([len(row) for row in covered]), strict=True)
            ]
            scalars |= {
                "loss": forced.loss + self.cell_weight * cells,
                "cells": cells,
                "cell_iou": torch.stack(ious).mean(),
            }
        return scalars

    @torch.no_grad()
    def validate(self, batch: TextBatch) -> dict[str, Tensor]:
        """The losses, the share of tokens that are right after the tokens of the true answer, and the IoU of cells."""
        return self.loss(batch)

    # --- state --------------------------------------------------------------------------------------------------

    def _start(self, checkpoint: str) -> None:
        tensors, system = checkpoints.read_tensors(checkpoint), checkpoints.read_card(checkpoint)["system"]
        own = ("row_positions", "column_positions", "look_ahead.weight")
        added = {k: v for k, v in self.learned_state().items() if k.endswith(own)}
        if system in PAPERS:
            tensors = added | tensors
        if system == self.name:
            self.load_learned(tensors, checkpoint)
        elif system in PAPERS:
            self.keep_new_words(tensors)
            self.load_learned(tensors, checkpoint)
        else:
            self.start_from_ras(tensors, checkpoint)


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of two sets, (T,) bool each; 1 if both are empty."""
    either = (first | second).sum()
    return torch.where(either > 0, (first & second).sum() / either.clamp(min=1), 1.0)


class AnswerPreparer:
    """Pictures with questions and the answers that a `Text4Seg` shall write.

    Args:
        system: which writes the answers.
        training: draw questions and answers at random.
    """

    def __init__(self, system: Text4Seg, training: bool) -> None:
        self.system, self.training = system, training

    def prepare(self, source: GroupSource, number: int, rng: np.random.Generator, prompts: int) -> TextItem:
        """See `structures.protocols.Preparer`."""
        with using(source, number):
            annotated = source.load(number)
            queries = source.queries(number, annotated.extra, prompts, rng)
            drawn = rng if self.training else None
            texts = [self.system.written(q, annotated.masks[list(q.targets)], drawn) for q in queries]
            references = [annotated.masks[list(q.references)] for q in queries]
            side = self.system.side
            image = resized_image(annotated.image, (side, side))
            kept = self._kept(annotated.masks, rng)
            targets = [annotated.masks[list(query.targets)].any(0) for query in queries]
            if not queries and isinstance(source, TextSource):  # a picture with a dialogue, without masks
                texts = source.texts(number, annotated.extra, prompts, rng)
                references = [annotated.masks[:0]] * len(texts)
                targets = [annotated.masks.new_zeros(annotated.masks.shape[1:])] * len(texts)
                kept = None if kept is None else torch.arange(math.prod(self.system.image_grid()), dtype=torch.int64)
            if self.system.cell_head is None:
                return TextItem(image, texts, references, None, kept)
            none = annotated.masks.new_zeros(0, *annotated.masks.shape[1:])
            covered = self._cells(torch.stack(targets) if targets else none)
            return TextItem(image, texts, references, covered, kept)

    def _cells(self, masks: Tensor) -> Tensor:
        """The share of each image token's cell that masks cover: (M, H, W) bool to (M, T) float32."""
        return cell_weights(masks, self.system.image_grid()).flatten(1)

    def _kept(self, masks: Tensor, rng: np.random.Generator) -> Tensor | None:
        """The image tokens that a training step reads, see `Text4Seg`; None for all."""
        if not self.training or self.system.background_share == 1:
            return None
        empty = ~(self._cells(masks) > 0).any(0)
        drawn = torch.from_numpy(rng.random(len(empty)) < self.system.background_share)
        return (drawn | ~empty).nonzero()[:, 0]

    def collate(self, items: list[TextItem]) -> TextBatch:
        """Stack the pictures."""
        return collate_texts(items)
