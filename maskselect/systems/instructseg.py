"""InstructSeg (arXiv 2412.14006): the language model writes the queries of a mask decoder, for pictures and clips.

    picture ── frozen encoder ── pixel decoder ──────────────┐
    picture, frames around it ── vision tower ── perceiver ─┐ │
    prompt ─────────────────────────────── language model ──┴─┤
        states of the mask tokens ── queries ────── mask decoder ── masks ─┐
        states of the instruction ── text fusion ── text embedding ────────┴─ score of each mask

The language model runs once for a prompt and a picture, and generates nothing: it reads the prompt and a given answer,
which ends in learned mask tokens. On a clip, each frame is the key frame once; the frames around it reach the language
model through the video perceiver. A picture is its own only frame.

The published system returns the best mask, whatever its score (`selection: best`). Ours are: several masks or none by a
threshold, `<mask-ref>` as a mask token, prompts of one picture in one batch, learned parts of the queries, scores of
given candidates, and objects that keep their identity over frames.

Shape letters: B items, F frames, P prompts, R rows (all prompts), Q queries, T image tokens, E width of the vision
tower, V perceiver tokens of a frame, D width of the language model, O width of a mask embedding, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from maskselect.backends import checkpoints, needs
from maskselect.backends.weightless import reads_weights
from maskselect.decoders.mask2former import MaskDecoder, MaskPredictions, PixelDecoder, PixelFeatures
from maskselect.encoders.frozen import FrozenEncoder
from maskselect.heads.binary import BinaryHead
from maskselect.heads.selection import select
from maskselect.losses.sets import SetLoss
from maskselect.ops.images import Interpolation, cornered_image, resized_image
from maskselect.ops.masks import mean_inside, not_empty, resize_nearest, unpadded_logits
from maskselect.ops.pooling import cell_weights
from maskselect.structures.answer import Answer
from maskselect.structures.batches import InstructBatch
from maskselect.structures.clip import Clip
from maskselect.structures.features import finest_first
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.masks import OF_PROMPT, MaskSet
from maskselect.structures.needs import FRAME_TOKENS, PROMPT_TOKENS, Arguments, Need
from maskselect.structures.protocols import LanguageModel
from maskselect.structures.sample import MASK_REF, Prompt
from maskselect.systems.answering import forced_answers, generate_texts
from maskselect.systems.cell_votes import cell_loss, cell_votes, place_cells
from maskselect.systems.instruct_batches import InstructPreparer, frames_around
from maskselect.systems.language_system import LanguageSystem, grid_of
from maskselect.systems.linking import ClipReading, Links, frame_numbers
from maskselect.systems.reading import Reader, Tokens, batch_without_candidates
from maskselect.systems.scoring import PROMPTS_PER_PASS, ReadImages, prompt_hidden, read_images
from maskselect.systems.text_questions import Phrasing, group_of
from maskselect.tokens import sequence
from maskselect.tokens.instruction_rows import InstructionRows, Request, RowLayout, Visual, Wording, own_wording
from maskselect.tokens.mask_tokenizer import MaskTokenizer
from maskselect.tokens.sequence import PackedRows, Segment, Slot
from maskselect.tokens.text_fusion import TextFusion
from maskselect.tokens.video_perceiver import VideoPerceiver

VISUALS: tuple[Visual, ...] = ("image", "clip")
REQUESTS: tuple[Request, ...] = ("referring", "reasoning")
Selection = Literal["threshold", "best"]
TextLoss = Literal["never", "replies", "always"]
"""On which answers the language model's loss is: none; those with words before the mask; all (as in the paper)."""


@dataclass(frozen=True)
class InstructReading:
    """A picture, read.

    Attributes:
        features: (1, T, E) of the vision tower.
        images: its prefix and cache; None where each prompt has a row of its own.
        pixels: of the pixel decoder.
        vision: (1, C, h, w), the coarsest map of the encoder.
        inner: height and width of the picture in its square.
        size: (H, W) of the picture.
        extra: given candidates, which are scored beside the own masks.
    """

    features: Tensor
    images: ReadImages | None
    pixels: PixelFeatures
    vision: Tensor
    inner: tuple[int, int]
    size: tuple[int, int]
    extra: MaskSet | None = None


@dataclass(frozen=True)
class Asked:
    """The prompts of one picture.

    Attributes:
        visual: whether the picture is one, or a frame of a clip.
        texts: P prompts.
        references: mask features of each prompt's references, (R, E).
        replies: words that precede the mask in each answer; "" for none.
    """

    visual: Visual
    texts: list[str]
    references: list[Tensor]
    replies: list[str]


class InstructSeg(LanguageSystem):
    """The InstructSeg system.

    Args:
        lmm: the language model, with LoRA as published, or without, which trains all of it.
        encoder: frozen encoder of the mask decoder; the finest of its maps has the grid of the masks.
        pixel_decoder, mask_decoder: of Mask2Former.
        perceiver: reads the frames; None leaves them out (Table 6).
        fusion: makes the text embedding.
        queries: Q.
        side: pictures become squares of this side, without padding, for the vision tower.
        interpolation: of this resizing; the published system takes "bicubic".
        layout: order of the tokens and what prompts share, see `tokens/instruction_rows.py`.
        phrasing: "sentences" around a prompt in our words, for pictures and clips, for descriptions and, where the
            prompt ends in "?", questions; or "plain" without, for compact models.
        wordings: other words, such as those of a published checkpoint, for "image referring", "image reasoning", "clip
            referring" and "clip reasoning"; their order has to fit the layout. They replace those of `phrasing`.
        reference_frames: frames around a key frame; 0 takes the key frame itself (Table 7).
        ovp_on_images: whether pictures pass through the perceiver too, as published.
        learned_queries: add learned vectors to the queries, from those of `decoder_start` on (ours); the language
            model's part then begins at zero.
        selection: "threshold" gives every mask whose score reaches the threshold (ours), "best" the best one.
        margin: with "threshold", a mask is left out if the logit of its score is further below the best one's (ours);
            None for no such rule.
        duplicates_iou: suppression by mask IoU among selected masks; None for none.
        set_loss: by default that of the published code, on all cells of the grid of the mask logits.
        text_loss: see `TextLoss`. The published code has it on answers with an explanation, and on answers in words.
        text_weight: its weight.
        candidate_weight: weight of the loss that trains `extra` candidates to be scored (ours): annotated masks are
            candidates; 0 is without.
        object_weight: weight of the set loss with which the learned queries alone, and one learned text vector, find
            all objects of a picture, whatever they are (ours, for training without a `decoder_start`); 0 is without.
        cell_positions: add learned embeddings of row and column to the image tokens, as Text4Seg has them (ours).
        cell_layer: number of layers behind which each image token of "image_after_prompt" predicts how much of its cell
            the targets cover, and
        cell_weight: weight of this loss (ours). The mean prediction under a mask, times a learned factor, is then added
            to its score. 0 is without.
        presence_weight: weight of a loss that trains the mean state of the mask tokens to tell whether a prompt has a
            target (ours); the probability is then a factor of every score. 0 is without.
        train_projector: whether the image projector trains; the published code freezes it.
        decoder_start: checkpoint of system "mask2former" whose decoders are taken.
        start: checkpoint to start from: of this system; of Text4Seg with the same vision tower and sizes, whose
            language model, projectors, positions and predictions of cells are taken; or of such a RAS, whose language
            model and mask projector are taken, the latter also for image tokens.

    Raises:
        ValueError: for settings that exclude each other, or a checkpoint that does not fit.
        FileNotFoundError: if a checkpoint does not exist.
    """

    name = "instructseg"
    title, paper = "InstructSeg", "2412.14006"
    summary = "a language model writes the queries of a mask decoder, and text embeddings score their masks"
    runs_every_part = False
    answers_prompts = True

    def __init__(
        self,
        lmm: LanguageModel,
        encoder: FrozenEncoder,
        pixel_decoder: PixelDecoder,
        mask_decoder: MaskDecoder,
        fusion: TextFusion,
        perceiver: VideoPerceiver | None = None,
        queries: int = 100,
        side: int = 256,
        interpolation: Interpolation = "bilinear",
        layout: RowLayout = "shared_image",
        phrasing: Phrasing = "plain",
        wordings: Mapping[str, Wording] | None = None,
        reference_frames: int = 4,
        ovp_on_images: bool = True,
        learned_queries: bool = False,
        selection: Selection = "threshold",
        margin: float | None = None,
        duplicates_iou: float | None = 0.7,
        set_loss: SetLoss | None = None,
        text_loss: TextLoss = "replies",
        text_weight: float = 1.0,
        candidate_weight: float = 0.0,
        object_weight: float = 0.0,
        cell_positions: bool = False,
        cell_layer: int = 4,
        cell_weight: float = 0.0,
        presence_weight: float = 0.0,
        train_projector: bool = True,
        decoder_start: str | None = None,
        start: str | None = None,
    ) -> None:
        width, positions = lmm.width, mask_decoder.query_embed
        if positions.num_embeddings != queries or reference_frames < 0:
            raise ValueError(
                f"queries {queries} and reference_frames {reference_frames}; expected the {positions.num_embeddings} "
                "queries of mask_decoder, and a number of frames from 0"
            )
        if object_weight > 0 and not learned_queries:
            raise ValueError("object_weight trains the learned queries; expected learned_queries true")
        layers: Any = lmm.language_model.layers
        if cell_weight > 0 and (layout != "image_after_prompt" or not 1 <= cell_layer <= len(layers)):
            raise ValueError(
                f"cell_weight trains image tokens that depend on the prompt; expected layout 'image_after_prompt' and "
                f"a cell_layer of 1 to {len(layers)}, got {layout!r} and {cell_layer}"
            )
        words = len(lmm.tokenizer)
        tokenizer = MaskTokenizer(lmm.vision_width, width)
        grid = grid_of(lmm, side) if cell_positions else None
        super().__init__(Reader(lmm, tokenizer, layout == "image_after_prompt", grid), side, words)
        self.has_prefix = layout != "published"
        self.rows = {
            (visual, request): InstructionRows(
                lmm,
                _wording(wordings, layout, visual, request, phrasing),
                layout,
                queries,
                tokenizer.ref_pre is not None,
            )
            for visual in VISUALS
            for request in REQUESTS
        }
        self.encoder, self.pixel_decoder, self.mask_decoder = encoder, pixel_decoder, mask_decoder
        self.perceiver, self.fusion = perceiver, fusion
        self.mask_queries = nn.Parameter(torch.zeros(queries, width, dtype=torch.float32))
        self.query_projector = nn.Linear(width, positions.embedding_dim)
        self.query_feat = None
        if learned_queries:
            self.query_feat = nn.Parameter(torch.zeros(queries, positions.embedding_dim, dtype=torch.float32))
            nn.init.normal_(self.query_feat)
            nn.init.zeros_(self.query_projector.weight)
            nn.init.zeros_(self.query_projector.bias)
        self.object_embed = None
        if object_weight > 0:
            self.object_embed = nn.Parameter(torch.randn(positions.embedding_dim, dtype=torch.float32))
        self.cell_layer, self.cell_weight, self.cell_head, self.cell_factor = cell_layer, cell_weight, None, None
        if cell_weight > 0:
            self.cell_head = BinaryHead(lmm.width)
            self.cell_factor = nn.Parameter(torch.ones((), dtype=torch.float32))
        self.presence_weight = presence_weight
        self.presence_head = BinaryHead(lmm.width) if presence_weight > 0 else None
        self.interpolation: Interpolation = interpolation
        self.reference_frames, self.ovp_on_images = reference_frames, ovp_on_images
        self.selection, self.margin, self.duplicates_iou = selection, margin, duplicates_iou
        self.set_loss = set_loss or SetLoss(points=None)
        self.text_loss, self.text_weight = text_loss, text_weight
        self.candidate_weight, self.object_weight = candidate_weight, object_weight
        self.train_words(True)
        lmm.projector.requires_grad_(train_projector)
        if reads_weights():
            if decoder_start is not None:
                self._start_decoder(decoder_start)
            if start is not None:
                self._start(start)
        self.train()

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The checkpoints to start from, and weights of a language model that would stay random."""
        found = needs.checkpoint(arguments.get("start"), "where training starts from")
        found += needs.checkpoint(arguments.get("decoder_start"), "the decoders that training starts from")
        return found if arguments.get("start") else found + needs.random_language_model(arguments)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        frames = max(self.reference_frames, 1) * (self.perceiver.tokens if self.perceiver else 0)
        prompt = PROMPT_TOKENS + frames + len(self.mask_queries)
        if self.has_prefix and not self.reader.image_after_prompt:
            return images * (FRAME_TOKENS + self.lmm.most_image_tokens) + prompts * prompt
        return prompts * (FRAME_TOKENS + self.lmm.most_image_tokens + prompt)

    @property
    def uses_threshold(self) -> bool:
        """Whether the selection threshold decides the group."""
        return self.selection == "threshold"

    @property
    def selects_by_score(self) -> bool:
        """Whether a threshold on the scores and the removal of duplicates are the whole rule of selection."""
        return self.selection == "threshold" and self.margin is None

    # --- from pictures and prompts to predictions -----------------------------------------------------------------

    def _rows_for(self, visual: Visual, text: str) -> InstructionRows:
        """How a prompt is asked."""
        return self.rows[visual, "reasoning" if group_of(text) == "reasoning" else "referring"]

    def _read_images(self, features: Tensor, visuals: Sequence[Visual]) -> ReadImages | None:
        """The prefixes of pictures (B, T, E), which their prompts share; None where each prompt has its own row."""
        if not self.has_prefix:
            return None
        tokens = self._tokens(features, [Asked(visual, [], [], []) for visual in visuals])
        grid = self.lmm.image_grid(self.side, self.side)
        found = [self.rows[visual, "referring"].prefix(features.shape[1], grid) for visual in visuals]
        prefixes = [prefix for prefix in found if prefix is not None]
        rows = sequence.pack([(one, []) for one in prefixes]).to(tokens.images.device)
        images = ReadImages(tokens, prefixes, [[] for _ in prefixes], rows, None)
        if not (self.lmm.gradient_checkpointing and torch.is_grad_enabled()):
            images.cache = self.lmm.new_cache()
            self.lmm.hidden(self.reader.embed(rows, tokens), None, rows.positions, images.cache)
        return images

    def _batch(self, features: Tensor, prompts: list[list[str]], references: list[list[Tensor]]) -> Any:
        grid = self.lmm.image_grid(self.side, self.side)
        grids = None if grid is None else torch.tensor([grid] * len(features), dtype=torch.int64)
        return batch_without_candidates(features, grids, features.shape[-1], prompts, references)

    def _instructions(self, tokens: Tokens, asked: Sequence[Asked]) -> tuple[Tensor, Tensor]:
        """Embeddings of all instructions, which no language model has read: (R, L, D), and (R, L) bool."""
        segments, owners = [], []
        for number, one in enumerate(asked):
            first = 0
            for text in one.texts:
                segments.append(self._rows_for(one.visual, text).instruction(text, 0, first))
                owners.append(number)
                first += text.count(MASK_REF)
        packed = sequence.pack([(segment, []) for segment in segments]).to(tokens.images.device)
        embedded = self.reader.embed(
            packed, tokens, torch.tensor(owners, dtype=torch.int64, device=tokens.images.device)
        )
        return embedded, packed.kinds != Slot.PAD

    def _perceived(self, tokens: Tokens, asked: Sequence[Asked], frames: Sequence[Tensor]) -> list[Tensor]:
        """Perceiver tokens of each row, (count * V, D), from each item's image tokens of its frames, (count, T, D)."""
        if self.perceiver is None:
            return [tokens.images.new_zeros(0, tokens.images.shape[-1]) for one in asked for _ in one.texts]
        text, valid = self._instructions(tokens, asked)
        of_rows = [own for own, one in zip(frames, asked, strict=True) for _ in one.texts]
        out: list[Tensor] = [text.new_zeros(0, text.shape[-1])] * len(of_rows)
        counts = [len(own) for own in of_rows]
        for count in sorted(set(counts) - {0}):
            some = [row for row, own in enumerate(counts) if own == count]
            read = self.perceiver(torch.stack([of_rows[row] for row in some]), text[some], valid[some])
            for row, own in zip(some, read, strict=True):
                out[row] = own
        return out

    def _tokens(self, features: Tensor, asked: Sequence[Asked]) -> Tokens:
        """Embeddings of pictures (B, T, E) and of the references of their prompts."""
        texts, references = [one.texts for one in asked], [one.references for one in asked]
        return self.reader.tokens(self._batch(features, texts, references))

    def _states(
        self, tokens: Tokens, images: ReadImages | None, asked: Sequence[Asked], perceived: Sequence[Tensor]
    ) -> tuple[Tensor, PackedRows]:
        """Hidden states of all rows and the rows, for B pictures and the perceiver tokens of each row.

        With predictions of cells, their states are appended, see `hidden_and_cells`.
        """
        own, first = [], 0
        for count in (len(one.texts) for one in asked):
            none = tokens.images.new_zeros(0, self.lmm.width)
            own.append(torch.cat([none, *perceived[first : first + count]]))
            first += count
        tokens = replace(tokens, temporal=pad_sequence(own, batch_first=True), mask_queries=self.mask_queries)
        parts: list[list[list[Segment]]] = []
        row = 0
        for number, one in enumerate(asked):
            start = images.prefixes[number].end if images is not None else 0
            parts.append([])
            before = references = 0
            for text, reply in zip(one.texts, one.replies, strict=True):
                count = len(perceived[row])
                image_tokens = tokens.images.shape[1]
                rows = self._rows_for(one.visual, text)
                parts[-1].append(rows.prompt(text, start, image_tokens, count, before, references, reply))
                before, references = before + count, references + text.count(MASK_REF)
                row += 1
        if images is not None:
            run = None if self.cell_head is None else self.hidden_and_cells
            packed, hidden = prompt_hidden(self.reader, replace(images, tokens=tokens), parts, "causal", run)
            return hidden, packed
        device = tokens.images.device
        packed = sequence.pack([(prompt[0], []) for prompts in parts for prompt in prompts]).to(device)
        owners = torch.tensor([n for n, prompts in enumerate(parts) for _ in prompts], dtype=torch.int64, device=device)
        return self.lmm.hidden(self.reader.embed(packed, tokens, owners), None, packed.positions), packed

    def _place(self, cells: Tensor | None, inner: Sequence[tuple[int, int]], pixels: PixelFeatures) -> Tensor | None:
        """What `cells` add to the score of a mask that covers a place, on the grid of masks: (R, h, w)."""
        if cells is None or self.cell_factor is None:
            return None
        height, width = pixels.mask_features.shape[-2:]
        return self.cell_factor * place_cells(cells, inner, self.encoder.info.input_size, (height, width))

    def _cells(self, hidden: Tensor, packed: PackedRows) -> tuple[Tensor, Tensor | None]:
        """The result of `_states` to hidden states and logits of the cells (R, h, w); None without predictions."""
        if self.cell_head is None:
            return hidden, None
        hidden, early = hidden.split(self.lmm.width, -1)
        logits: Tensor = self.cell_head(sequence.gather(early, packed, packed.kinds == Slot.IMAGE)[0]).float()
        return hidden, logits.unflatten(1, grid_of(self.lmm, self.side))

    def _presence(self, hidden: Tensor, packed: PackedRows) -> Tensor | None:
        """Logits (R,) that prompts have a target; None without predictions."""
        if self.presence_head is None:
            return None
        states, _ = sequence.gather(hidden, packed, packed.kinds == Slot.MASK_QUERY)
        logits: Tensor = self.presence_head(states.mean(1))
        return logits.float()

    def _decoded(
        self,
        hidden: Tensor,
        packed: PackedRows,
        pixels: PixelFeatures,
        vision: Tensor,
        owner: Tensor,
        last: bool,
        placed: Tensor | None = None,
    ) -> tuple[MaskPredictions, Tensor]:
        """Predictions of all rows, and their text embeddings (R, 1, O).

        Args:
            hidden, packed: of all rows.
            pixels, vision: of the items.
            owner: (R,) int64, the item of each row.
            last: the last prediction alone.
            placed: result of `_place`.
        """
        text, valid = sequence.gather(hidden, packed, sequence.is_instruction(packed.kinds))
        states, _ = sequence.gather(hidden, packed, packed.kinds == Slot.MASK_QUERY)
        queries = self.query_projector(states)
        if self.query_feat is not None:
            queries = queries + self.query_feat
        embedding = self.fusion(text, valid, vision[owner])[:, None]
        found: MaskPredictions = self.mask_decoder(pixels, queries, embedding, owner, only_last=last)
        if placed is None:
            return found, embedding
        votes = [cell_votes(placed, masks.detach().sigmoid()) for masks in found.masks]
        return MaskPredictions([a + b for a, b in zip(found.scores, votes, strict=True)], found.masks), embedding

    def _objects(self, pixels: PixelFeatures) -> MaskPredictions:
        """All objects of B pictures, whatever they are."""
        assert self.query_feat is not None and self.object_embed is not None
        queries = self.query_feat.expand(len(pixels.mask_features), -1, -1)
        predicted: MaskPredictions = self.mask_decoder(pixels, queries, self.object_embed[None, None])
        return predicted

    def _pixels(self, pictures: Tensor) -> tuple[PixelFeatures, Tensor]:
        """Of pictures (B, 3, S, S) uint8: the output of the pixel decoder, and the coarsest map of the encoder."""
        device = self.mask_queries.device
        with torch.autocast(device.type, enabled=False):
            maps = finest_first(self.encoder.encode(pictures.to(device).float() / 255))
        return self.pixel_decoder(maps), maps[-1]

    # --- inference ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> InstructReading | ClipReading:
        """See `structures.protocols.System`; extra candidates are scored beside the system's own masks.

        Raises:
            ValueError: for extra candidates of a clip.
        """
        if isinstance(visual, np.ndarray):
            return self._read(visual, self.image_features(self._square(visual)[None]), "image", extra)
        if extra is not None:
            raise ValueError("extra candidates belong to one picture; expected none with a clip")
        return ClipReading(visual)

    def _square(self, image: np.ndarray) -> Tensor:
        return resized_image(image, (self.side, self.side), self.interpolation)

    def _read(
        self, image: np.ndarray, features: Tensor, visual: Visual, extra: MaskSet | None = None
    ) -> InstructReading:
        picture, inner = cornered_image(image, self.encoder.info.input_size)
        pixels, vision = self._pixels(picture[None])
        size = (image.shape[0], image.shape[1])
        return InstructReading(features, self._read_images(features, [visual]), pixels, vision, inner, size, extra)

    @torch.no_grad()
    def answer(
        self, reading: InstructReading | ClipReading, prompts: list[Prompt], threshold: float | None
    ) -> list[Answer]:
        """See `structures.protocols.System`. A prompt in quotation marks is answered in words.

        Args:
            reading: result of `read`.
            prompts: their reference masks have the size of the picture, or of the frame in `Prompt.frames`.
            threshold: selection threshold; None is 0.5.
        """
        cut = 0.5 if threshold is None else threshold
        if isinstance(reading, ClipReading):
            return self._clip_answers(reading.clip, prompts, cut)
        references = [self.pooled(reading.features[0], prompt.references) for prompt in prompts]
        in_words = [group_of(prompt.text) == "text" for prompt in prompts]
        answers: dict[int, Answer] = {}
        for number in (n for n, words in enumerate(in_words) if words):
            answers[number] = self._worded(reading, prompts[number].text[1:-1], references[number])
        masked = [number for number, words in enumerate(in_words) if not words]
        for first in range(0, len(masked), PROMPTS_PER_PASS):
            some = masked[first : first + PROMPTS_PER_PASS]
            asked = Asked("image", [prompts[n].text for n in some], [references[n] for n in some], [""] * len(some))
            tokens = self._tokens(reading.features, [asked])
            perceived = self._perceived(tokens, [asked], [tokens.images if self.ovp_on_images else tokens.images[:0]])
            answers |= zip(some, self._answers(reading, tokens, asked, perceived, cut), strict=True)
        return [answers[number] for number in range(len(prompts))]

    def _answers(
        self, reading: InstructReading, tokens: Tokens, asked: Asked, perceived: Sequence[Tensor], cut: float
    ) -> list[Answer]:
        """Answers to prompts about one picture, from its tokens and the perceiver tokens of each prompt."""
        states, packed = self._states(tokens, reading.images, [asked], perceived)
        hidden, cells = self._cells(states, packed)
        placed = self._place(cells, [reading.inner] * len(asked.texts), reading.pixels)
        owner = torch.zeros(len(asked.texts), dtype=torch.int64, device=hidden.device)
        predicted, text = self._decoded(hidden, packed, reading.pixels, reading.vision, owner, True, placed)
        scores, extra = predicted.scores[-1].sigmoid(), self._extra_scores(reading, text, placed)
        if (presence := self._presence(hidden, packed)) is not None:
            scores, extra = (own * presence.sigmoid()[:, None] for own in (scores, extra))
        rows = zip(predicted.masks[-1], scores, extra, strict=True)
        return [self._selected(reading, logits, scores, own, cut) for logits, scores, own in rows]

    def _extra_scores(self, reading: InstructReading, text: Tensor, placed: Tensor | None) -> Tensor:
        """Scores (R, N) of the N extra candidates."""
        if reading.extra is None or not len(reading.extra):
            return text.new_zeros(len(text), 0)
        masks = self._squared_masks(reading.extra.masks, reading.inner).to(text.device)
        return self._candidate_scores(reading.pixels, masks, text, placed).sigmoid()

    def _candidate_scores(self, pixels: PixelFeatures, masks: Tensor, text: Tensor, placed: Tensor | None) -> Tensor:
        """Logits (R, N) of given masks of one picture, (N, S, S) bool."""
        scores = self.mask_decoder.score_masks(pixels, masks, text)
        if placed is None:
            return scores
        return scores + cell_votes(placed, cell_weights(masks, (placed.shape[1], placed.shape[2])))

    def _squared_masks(self, masks: Tensor, inner: tuple[int, int]) -> Tensor:
        """Masks of a picture (N, H, W) in its square: (N, S, S)."""
        side = self.encoder.info.input_size
        return F.pad(resize_nearest(masks, inner), (0, side - inner[1], 0, side - inner[0]))

    def _selected(self, reading: InstructReading, logits: Tensor, scores: Tensor, extra: Tensor, cut: float) -> Answer:
        """The group of one prompt: from Q mask logits and probabilities, and those of extra candidates."""
        full = unpadded_logits(logits, self.encoder.info.input_size, reading.inner, reading.size)
        masks, scores = (full > 0).cpu(), (scores * mean_inside(full)).cpu().float()
        pool = MaskSet(masks, scores, OF_PROMPT)
        if reading.extra is not None and len(extra):
            own = reading.extra
            joined = MaskSet(resize_nearest(own.masks, reading.size), own.scores, own.source)
            pool, scores = pool.concat(joined), torch.cat([scores, extra.cpu().float()])
        filled = not_empty(pool.masks)
        pool, scores = pool.keep(filled.nonzero()[:, 0]), scores[filled]
        chosen = scores >= cut
        if self.margin is not None and len(scores):
            sure = scores.logit(eps=1e-6)
            chosen &= sure >= sure.max() - self.margin
        if self.selection == "best":
            chosen = torch.zeros_like(chosen)
            chosen[scores.argmax() : scores.argmax() + 1] = True if len(scores) else chosen
        group = select(pool.masks, scores, chosen, self.duplicates_iou)
        return Answer(pool.masks[group], scores[group], pool, scores)

    def _worded(self, reading: InstructReading, question: str, references: Tensor) -> Answer:
        """An answer in words."""
        images = read_images(self.reader, self._batch(reading.features, [[]], [[]]))
        tokens = self.reader.mask_tokenizer(references.to(reading.features.device))
        images = replace(images, tokens=replace(images.tokens, references=tokens[None]))
        ids = generate_texts(self.reader, images, [question], 64).ids[0]
        none = torch.zeros(0, *reading.size, dtype=torch.bool)
        return Answer(none, torch.zeros(0, dtype=torch.float32), text=self.lmm.decode(ids))

    def _clip_answers(self, clip: Clip, prompts: list[Prompt], cut: float) -> list[Answer]:
        """The objects of each prompt. Frames are read in order, and held as long as a key frame needs them."""
        features: dict[int, Tensor] = {}
        perceived: dict[int, list[Tensor]] = {}

        def features_of(frame: int) -> Tensor:
            if frame not in features:
                features[frame] = self.image_features(self._square(clip[frame])[None])
            return features[frame]

        references = [self.references_of(prompt, features_of) for prompt in prompts]
        features.clear()
        visual: Visual = "image" if len(clip) == 1 else "clip"  # a picture is a clip of one frame
        asked = Asked(visual, [prompt.text for prompt in prompts], references, [""] * len(prompts))
        links = [Links(len(clip), clip.size) for _ in prompts]
        for key in frame_numbers(clip):
            around = self._around(key, len(clip))
            oldest = min([key, *around])
            for held in (features, perceived):
                for frame in [frame for frame in held if frame < oldest]:
                    del held[frame]
            for frame in around:
                if frame not in perceived:
                    tokens = self._tokens(features_of(frame), [asked])
                    perceived[frame] = self._perceived(tokens, [asked], [tokens.images])
            reading = self._read(clip[key], features_of(key), visual)
            none = reading.features.new_zeros(0, self.lmm.width)
            own = [torch.cat([none, *(perceived[frame][row] for frame in around)]) for row in range(len(prompts))]
            relative = reading.features[0] - reading.features[0].mean(0, keepdim=True)
            for first in range(0, len(prompts), PROMPTS_PER_PASS):
                some = slice(first, first + PROMPTS_PER_PASS)
                part = Asked(visual, asked.texts[some], asked.references[some], asked.replies[some])
                tokens = self._tokens(reading.features, [part])
                answers = self._answers(reading, tokens, part, own[some], cut)
                for link, answer in zip(links[some], answers, strict=True):
                    assert isinstance(answer.masks, Tensor)
                    link.add(key, answer.masks, answer.scores, self.pooled(relative, answer.masks).cpu())
        return [link.answer() for link in links]

    def _around(self, key: int, length: int) -> list[int]:
        """The frames that the perceiver reads with a key frame."""
        return [] if length == 1 and not self.ovp_on_images else frames_around(key, length, self.reference_frames)

    # --- training -------------------------------------------------------------------------------------------------

    def preparer(self, settings: PrepareSettings, training: bool) -> InstructPreparer:
        """Pictures and clips with prompts."""
        return InstructPreparer(
            self.side, self.interpolation, self.encoder.info.input_size, self.reference_frames, training
        )

    def loss(self, batch: InstructBatch) -> dict[str, Tensor]:
        """The set loss over all predictions of the decoder, and the losses of text and of given candidates."""
        return self._losses(batch)[0]

    def _losses(self, batch: InstructBatch) -> tuple[dict[str, Tensor], MaskPredictions | None, list[Tensor]]:
        features = self.image_features(batch.frames)
        if self.training:
            self.reader.mask_tokenizer.fit_statistics(features.flatten(0, 1))
        keys = features[batch.keys]
        scalars: dict[str, Tensor] = {}
        loss = keys.new_zeros(())
        predicted, targets = None, self._targets(batch)
        if targets:
            asked = self._asked(batch, features)
            images = self._read_images(keys, [one.visual for one in asked])
            tokens = self._tokens(keys, asked)
            projected = self.lmm.project_image(features)
            frames = [
                projected[[] if one.visual == "image" and not self.ovp_on_images else around]
                for around, one in zip(batch.around, asked, strict=True)
            ]
            states, packed = self._states(tokens, images, asked, self._perceived(tokens, asked, frames))
            hidden, cells = self._cells(states, packed)
            owners = [number for number, texts in enumerate(batch.prompts) for _ in texts]
            owner = torch.tensor(owners, dtype=torch.int64, device=keys.device)
            pixels, vision = self._pixels(batch.pictures)
            inner = [batch.sizes[number] for number in owners]
            placed = self._place(cells, inner, pixels)
            predicted, text = self._decoded(hidden, packed, pixels, vision, owner, False, placed)
            scalars = self.set_loss(predicted.scores, predicted.masks, targets)
            loss = scalars["loss"]
            if self.candidate_weight > 0:
                scalars["candidates"] = self._candidate_loss(batch, pixels, text, placed)
                loss = loss + self.candidate_weight * scalars["candidates"]
            if cells is not None:
                scalars["cells"] = cell_loss(cells, targets, inner)
                loss = loss + self.cell_weight * scalars["cells"]
            if (presence := self._presence(hidden, packed)) is not None:
                has_target = torch.tensor([bool(own.any()) for own in targets], dtype=torch.float32, device=keys.device)
                scalars["presence"] = F.binary_cross_entropy_with_logits(presence, has_target)
                loss = loss + self.presence_weight * scalars["presence"]
            if self.query_feat is not None and self.object_embed is not None:
                found = self._objects(pixels)
                own = self.set_loss(found.scores, found.masks, batch.objects)
                scalars |= {f"objects_{name}": value for name, value in own.items()}
                loss = loss + self.object_weight * own["loss"]
            if self.text_loss != "never":
                scalars["text"] = self._reply_loss(hidden, packed, [bool(r) for one in asked for r in one.replies])
                loss = loss + self.text_weight * scalars["text"]
        if any(batch.words):
            scalars["words"] = self._words_loss(keys, batch.words)
            loss = loss + self.text_weight * scalars["words"]
        return {**scalars, "loss": loss}, predicted, targets

    def _targets(self, batch: InstructBatch) -> list[Tensor]:
        """The targets of all rows, (N, S, S) bool each."""
        pairs = zip(batch.objects, batch.targets, strict=True)
        return [objects[list(numbers)] for objects, rows in pairs for numbers in rows]

    def _asked(self, batch: InstructBatch, features: Tensor) -> list[Asked]:
        out = []
        for key, around, texts, masks, numbers, replies in zip(
            batch.keys,
            batch.around,
            batch.prompts,
            batch.references,
            batch.reference_frames,
            batch.replies,
            strict=True,
        ):
            pooled = [
                torch.cat(
                    [features.new_zeros(0, features.shape[-1])]
                    + [self.pooled(features[frame], mask[None]) for frame, mask in zip(frames, own, strict=True)]
                )
                for own, frames in zip(masks, numbers, strict=True)
            ]
            out.append(Asked("image" if around == [key] else "clip", texts, pooled, replies))
        return out

    def _candidate_loss(
        self, batch: InstructBatch, pixels: PixelFeatures, text: Tensor, placed: Tensor | None
    ) -> Tensor:
        """Binary cross entropy of the scores of annotated masks, given as candidates."""
        losses, row = [text.sum() * 0], 0
        for number, (objects, targets) in enumerate(zip(batch.objects, batch.targets, strict=True)):
            some = slice(row, row + len(targets))
            own, votes = text[some], None if placed is None else placed[some]
            row += len(targets)
            if not len(objects) or not len(targets):
                continue
            one = PixelFeatures([m[number : number + 1] for m in pixels.maps], pixels.mask_features[number, None])
            scores = self._candidate_scores(one, objects, own, votes)
            wanted = torch.zeros_like(scores)
            for prompt, numbers in enumerate(targets):
                wanted[prompt, list(numbers)] = 1
            losses.append(F.binary_cross_entropy_with_logits(scores, wanted))
        return torch.stack(losses).sum() / max(1, len(losses) - 1)

    def _reply_loss(self, hidden: Tensor, packed: PackedRows, worded: list[bool]) -> Tensor:
        """Cross entropy of the tokens of given answers, from the states before them."""
        row, column = (packed.kinds == Slot.REPLY).nonzero(as_tuple=True)
        if self.text_loss == "replies":
            one_each = len(worded) == len(packed.kinds)
            prompt = row if one_each else self._prompt_numbers(packed)[row, column]
            chosen = torch.tensor(worded, dtype=torch.bool, device=row.device)[prompt]
            row, column = row[chosen], column[chosen]
        if not len(row):
            return hidden.sum() * 0
        logits = self.lmm.token_logits(hidden[row, column - 1]).float()
        return F.cross_entropy(logits, packed.values[row, column])

    @staticmethod
    def _prompt_numbers(packed: PackedRows) -> Tensor:
        """The number of the prompt of each position, where several prompts are in one row: (rows, L) int64."""
        counts = packed.blocks.amax(1) + 1
        return packed.blocks + (counts.cumsum(0) - counts)[:, None]

    def _words_loss(self, features: Tensor, words: list[list[tuple[str, str]]]) -> Tensor:
        """Cross entropy of answers in words."""
        some = [number for number, pairs in enumerate(words) if pairs]
        questions = [[question for question, _ in words[number]] for number in some]
        answers = [[answer for _, answer in words[number]] for number in some]
        none = [[features.new_zeros(0, features.shape[-1]) for _ in row] for row in questions]
        images = read_images(self.reader, self._batch(features[some], questions, none))
        forced = forced_answers(self.reader, images, questions, answers, self.rows["image", "referring"].seg_id)
        assert forced.loss is not None
        return forced.loss

    @torch.no_grad()
    def validate(self, batch: InstructBatch) -> dict[str, Tensor]:
        """The losses; "giou", the mean IoU of all masks above 0.5 together with the targets, 1 if both are empty."""
        scalars, predicted, targets = self._losses(batch)
        if predicted is None:
            return scalars
        grid = predicted.masks[-1].shape[-2], predicted.masks[-1].shape[-1]
        ious = []
        for logits, scores, wanted in zip(predicted.masks[-1], predicted.scores[-1], targets, strict=True):
            probable = scores.sigmoid() * mean_inside(logits) >= 0.5
            union = (logits[probable] > 0).any(0)
            cells = F.adaptive_avg_pool2d(wanted[None].any(1).float(), grid)[0] >= 0.5
            either = (union | cells).sum()
            ious.append(torch.where(either > 0, (union & cells).sum() / either.clamp(min=1), 1.0))
        return scalars | {"giou": torch.stack(ious).mean()}

    # --- state ----------------------------------------------------------------------------------------------------

    def _start_decoder(self, checkpoint: str) -> None:
        """Take pixel decoder, mask decoder, learned queries and the text vector of "an object"."""
        tensors = {name: tensor.float() for name, tensor in checkpoints.read_tensors(checkpoint).items()}
        held = self.state_dict()
        expected = {name: held[name] for name in held if name.startswith(("pixel_decoder.", "mask_decoder."))}
        expected |= {"query_feat": self.mask_decoder.query_embed.weight, "object_embed": self.fusion.output.bias}
        checkpoints.check_fit(expected, tensors, checkpoint, f"{self.title} as configured")
        self.load_state_dict({name: tensor for name, tensor in tensors.items() if name in held}, strict=False)
        with torch.no_grad():
            # Scores begin as those of "an object".
            self.fusion.output.weight.mul_(0.1)
            self.fusion.output.bias.copy_(tensors["object_embed"])

    def _start(self, checkpoint: str) -> None:
        tensors, system = checkpoints.read_tensors(checkpoint), checkpoints.read_card(checkpoint)["system"]
        if system == self.name:
            added = {k: v for k, v in self.learned_state().items() if k.startswith("presence_head.")}
            self.load_learned(added | tensors, checkpoint)
        elif system in ("text4seg", "text4segpp"):
            self._start_from_text4seg(tensors, checkpoint)
        else:
            self.start_from_ras(tensors, checkpoint)

    def _start_from_text4seg(self, tensors: dict[str, Tensor], checkpoint: str) -> None:
        """Take all that both systems have, without the tokens that Text4Seg added."""
        held = self.learned_state()
        taken = {name: tensor.float() for name, tensor in tensors.items() if name in held}
        self.keep_new_words(taken)
        expected = {name: held[name] for name in held if name in taken or name.startswith("reader.lmm.")}
        checkpoints.check_fit(expected, taken, checkpoint, f"{self.title} as configured")
        self.load_state_dict(taken, strict=False)


def _wording(
    given: Mapping[str, Wording] | None, layout: RowLayout, visual: Visual, request: Request, phrasing: Phrasing
) -> Wording:
    """The words around a prompt. Raises ValueError for given words that lack a kind."""
    if given is None:
        return own_wording(layout, visual, "plain" if phrasing == "plain" else request)
    if f"{visual} {request}" not in given:
        raise ValueError(f"wordings have {', '.join(given)}; expected one for {visual} {request!r} too")
    return given[f"{visual} {request}"]
