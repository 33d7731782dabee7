"""LLM-Seg: candidates are selected by similarity to a token `[SEG]` and by predicted IoP (arXiv 2404.08767).

    image -> proposer -> candidates -> encoder, mask pooling -> features -> 1x1 convolution -> mask embeddings
    image + question -> language model -> an answer with [SEG] -> hidden state -> projection
    mask embeddings + [SEG] -> fusion -> IoU head (similarity), IoP head (regression) -> group

Proposer, encoder and vision tower are frozen; the language model trains by LoRA.

Two things are our additions. A `<mask-ref>` in a question becomes a mask token, as in RAS; the paper has no references.
The answer to a no-target prompt contains no `[SEG]`, so the group is empty, and the IoP head learns 0 for it; the paper
does not train on such prompts.

Paper and released code differ; the defaults are those of the code.

Shape letters: B images, P prompts, N candidates, C pooled channels, D width of the language model, E of the fusion.
"""

from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import checkpoints, needs
from maskselect.backends.weightless import reads_weights
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.heads.fusion import MaskFusion
from maskselect.heads.overlap import HeadForm, IopHead, IouHead
from maskselect.heads.strategies import Strategy, choose
from maskselect.losses.overlap import Divergence, alignment_loss, iop_loss
from maskselect.structures.features import FeatureMap
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import ANSWER_TOKENS, FRAME_TOKENS, PROMPT_TOKENS, Arguments, Need
from maskselect.structures.protocols import LanguageModel, Proposer
from maskselect.structures.sample import Batch
from maskselect.systems import questions
from maskselect.systems.answering import Answers, forced_answers, generated_answers
from maskselect.systems.candidates import CandidateSystem
from maskselect.systems.reading import Reader, batch_without_candidates
from maskselect.systems.scoring import ReadImages, read_images
from maskselect.tokens.mask_tokenizer import MaskTokenizer, NoMaskTokens

Answering = Literal["generated", "teacher_forced"]

DOUBTED = 0.5
"""Share of no-target prompts that train the IoP head, with `[SEG]` in the answer and IoP 0 for all candidates.

It keeps the group empty if the language model answers with `[SEG]` by mistake. Our addition."""


@dataclass(frozen=True)
class ReadCandidates:
    """The reading of one image.

    Attributes:
        image: its tokens and cache.
        embeddings: mask embeddings of its candidates before fusion, (N, E).
    """

    image: ReadImages
    embeddings: Tensor


class LLMSeg(CandidateSystem):
    """The LLM-Seg system.

    Args:
        proposer: proposes the candidates.
        encoders: the frozen ensemble; DINOv2 in the paper.
        lmm: the language model; it trains completely if it has no LoRA.
        width, heads, mlp_dim, depth: sizes of the fusion.
        fusion, iou_head, iop_head: whether these parts exist (Table 2).
        head_form: widths of the heads, "released" or "paper", see `heads/overlap.py`.
        similarity: similarity of mask and `[SEG]`: "cosine" (released) or "dot" (paper).
        divergence: see `losses/overlap.py`.
        temperature: of the softmaxes; 0.05 in the code, "small" in the paper.
        iou_weight, iop_weight, text_weight: weights of the losses (Equation 4). The paper has no loss of the language
            model, which is text_weight 0.
        train_embeddings: train token embeddings and LM head beside LoRA, as in the released code; the paper mentions
            only LoRA.
        train_projector: train the image projector; our addition for compact models.
        references: whether prompts may contain `<mask-ref>`, which needs a mask projector; our addition.
        strategy: the rule that selects the group, see `heads/strategies.py`.
        answering: "generated", or "teacher_forced" as in the published evaluation, in which every answer has `[SEG]`.
        phrasing: form of questions and answers, see `systems/questions.py`.
        start: checkpoint of this system to start from.

    Raises:
        FileNotFoundError: if `start` is missing.
        ValueError: if there is no head, the strategy needs a missing one, or `start` does not fit.
    """

    name = "llmseg"
    title, paper = "LLM-Seg", "2404.08767"
    summary = (
        "a language model answers the prompt with a token `[SEG]`, and heads score every candidate mask against it"
    )
    runs_every_part = False
    duplicates_iou = None
    """None, because the candidates of a group are united."""

    def __init__(
        self,
        proposer: Proposer,
        encoders: EncoderEnsemble,
        lmm: LanguageModel,
        width: int = 256,
        heads: int = 8,
        mlp_dim: int = 2048,
        depth: int = 2,
        fusion: bool = True,
        iou_head: bool = True,
        iop_head: bool = True,
        head_form: HeadForm = "released",
        similarity: Literal["cosine", "dot"] = "cosine",
        divergence: Divergence = "released",
        temperature: float = 0.05,
        iou_weight: float = 1.0,
        iop_weight: float = 50.0,
        text_weight: float = 1.0,
        train_embeddings: bool = True,
        train_projector: bool = False,
        references: bool = True,
        strategy: Strategy = "iop",
        answering: Answering = "generated",
        phrasing: questions.Phrasing = "published",
        start: str | None = None,
    ) -> None:
        if not (iou_head or iop_head):
            raise ValueError("LLM-Seg needs iou_head or iop_head")
        if (strategy != "iop" and not iou_head) or (strategy != "top_iou" and not iop_head):
            raise ValueError(f"strategy {strategy!r} needs a head that is switched off")
        seg_id = lmm.add_token(questions.SEG)
        mask_tokens = MaskTokenizer(encoders.channels, lmm.width) if references else NoMaskTokens(lmm.width)
        super().__init__(proposer, encoders, Reader(lmm, mask_tokens))
        self.channels, self.seg_id = encoders.channels, seg_id
        self.text_projection = nn.Sequential(nn.Linear(lmm.width, lmm.width), nn.ReLU(), nn.Linear(lmm.width, width))
        self.mask_conv = nn.Conv2d(self.channels, width, 1)
        self.fusion = MaskFusion(width, heads, mlp_dim, depth) if fusion else None
        self.iou_head = IouHead(width, head_form) if iou_head else None
        self.iop_head = IopHead(width, head_form) if iop_head else None
        self.similarity, self.divergence, self.temperature = similarity, divergence, temperature
        self.iou_weight, self.iop_weight, self.text_weight = iou_weight, iop_weight, text_weight
        self.train_embeddings, self.train_projector = train_embeddings, train_projector
        self.strategy, self.answering, self.phrasing = strategy, answering, phrasing
        self._freeze()
        if start is not None and reads_weights():
            self.load_learned(checkpoints.read_tensors(start), start)
        self.train()  # loaded parts are in evaluation mode, and Lightning does not change it

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The checkpoint to start from, and weights for a frozen language model."""
        start = needs.checkpoint(arguments.get("start"), "where training starts from")
        return start + needs.random_language_model(arguments)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        return images * (FRAME_TOKENS + self.lmm.most_image_tokens) + prompts * (PROMPT_TOKENS + ANSWER_TOKENS)

    def _freeze(self) -> None:
        """Freeze or unfreeze projector, token embeddings and LM head."""
        self.lmm.projector.requires_grad_(self.train_projector)
        for name, parameter in self.reader.named_parameters():
            if "embed_tokens" in name or "lm_head" in name:
                parameter.requires_grad_(self.train_embeddings)

    @property
    def selects_by_score(self) -> bool:
        """Whether the threshold on a candidate's own score decides, so that a group for another one needs no model."""
        return self.strategy == "iop"

    @property
    def uses_threshold(self) -> bool:
        """False for strategies that select the most similar candidate at any threshold."""
        return self.strategy not in ("top_iou", "iop_or_top_iou")

    # --- features -----------------------------------------------------------------------------------------------

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """See `CandidateSystem.pool_features`."""
        return self.encoders.pool(maps, masks if isinstance(masks, Tensor) else masks.masks)

    def mask_embeddings(self, features: Tensor) -> Tensor:
        """Pooled features (..., N, C) to mask embeddings (..., N, E).

        In the paper the 1x1 convolution precedes the pooling. Both are linear, so the order does not matter, and frozen
        features are pooled only once.
        """
        flat = self.reader.mask_tokenizer.standardised(features).reshape(-1, self.channels, 1, 1)
        return cast(Tensor, self.mask_conv(flat)).reshape(*features.shape[:-1], self.mask_conv.out_channels)

    # --- inference ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def read_candidates(self, image: np.ndarray, candidate_features: Tensor) -> ReadCandidates:
        """Read an image (H, W, 3) uint8 and its candidates (N, C) once for all prompts."""
        features = self.picture_features(image)
        batch = batch_without_candidates(features, self.image_grids(image), self.channels, [[]], [[]])
        embeddings = self.mask_embeddings(candidate_features.to(features.device))
        return ReadCandidates(read_images(self.reader, batch), embeddings)

    @torch.no_grad()
    def score_candidates(
        self, read: ReadCandidates, prompts: list[str], references: list[Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """See `CandidateSystem.score_candidates`.

        Scores are IoP, or with strategy "top_iou" the similarity; 0 if the answer has no `[SEG]`.
        """
        answers = self.answers(read, prompts, references)
        similarity, iop = self._compare(read.embeddings.expand(len(prompts), -1, -1), answers.states)
        chosen = choose(similarity, iop, self.strategy, threshold) & answers.has_seg[:, None]
        scores = (similarity + 1) / 2 if self.strategy == "top_iou" else iop
        return (scores.clamp(0, 1) * answers.has_seg[:, None]).float().cpu(), chosen.cpu()

    @torch.no_grad()
    def answers(self, read: ReadCandidates, prompts: list[str], references: list[Tensor]) -> Answers:
        """The language model's answers to prompts about one image.

        Raises:
            ValueError: for references if `references` is False, and for a prompt that contains `[SEG]`.
        """
        bad = next((prompt for prompt in prompts if questions.SEG in prompt), None)
        if bad is not None:
            raise ValueError(f"prompt {bad!r} holds {questions.SEG}, which only an answer may; ask without it")
        device = read.embeddings.device
        none = torch.zeros(0, self.channels, dtype=torch.float32, device=device)
        tokens = self.reader.mask_tokenizer(torch.cat([none, *(r.to(device) for r in references)]))
        texts = [questions.ask(prompt, None, self.phrasing) for prompt in prompts]
        if self.answering == "generated":
            return generated_answers(self.reader, read.image, texts, tokens, self.seg_id)
        image = replace(read.image, tokens=replace(read.image.tokens, references=tokens[None]))
        answers = [questions.answer(True, None, self.phrasing)] * len(texts)
        return forced_answers(self.reader, image, [texts], [answers], self.seg_id)

    def _compare(self, embeddings: Tensor, states: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Similarity and IoP (R, N) of candidates (R, N, E) for hidden states (R, D); zeros if a head is missing."""
        text = self.text_projection(states)
        if embeddings.shape[1] == 0:
            return embeddings.new_zeros(embeddings.shape[:2]), embeddings.new_zeros(embeddings.shape[:2])
        masks = embeddings if self.fusion is None else self.fusion(embeddings, text[:, None], valid)
        similarity = iop = masks.new_zeros(masks.shape[:2])
        if self.iou_head is not None:
            masks_iou = self.iou_head(masks)
            if self.similarity == "cosine":
                masks_iou, text = F.normalize(masks_iou, dim=-1), F.normalize(text, dim=-1)
            similarity = torch.einsum("rne,re->rn", masks_iou, text)
        if self.iop_head is not None:
            iop = self.iop_head(masks)
        return similarity, iop

    # --- training -----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The losses by name; "loss" is minimised. Raises ValueError for a batch without overlaps."""
        return self._losses(batch)[0]

    def _losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """The losses, and for prompts with a target: similarity, IoU, and which candidates are valid, each (R, N)."""
        if batch.overlaps is None or batch.image_features is None:
            raise ValueError("LLM-Seg trains on batches with overlaps and image features")
        if self.training:
            self.reader.mask_tokenizer.fit_statistics(batch.candidate_features[batch.candidate_valid])
        rng = np.random.default_rng(int(torch.randint(2**31, ()))) if self.training else None
        image_questions = [[questions.ask(text, rng, self.phrasing) for text in texts] for texts in batch.prompts]
        places = [(image, prompt) for image, texts in enumerate(image_questions) for prompt in range(len(texts))]
        has_target = [bool(batch.overlaps.any_target[place]) for place in places]
        in_loss = [target or rng is None or self.iop_head is None or rng.random() >= DOUBTED for target in has_target]
        with_seg = [target or not counts for target, counts in zip(has_target, in_loss, strict=True)]
        texts = iter([questions.answer(any_target, rng, self.phrasing) for any_target in with_seg])
        replies = [[next(texts) for _ in row] for row in image_questions]
        blind = batch_without_candidates(
            batch.image_features, batch.image_grids, self.channels, image_questions, batch.reference_features
        )
        answers = forced_answers(
            self.reader, read_images(self.reader, blind), image_questions, replies, self.seg_id, in_loss
        )
        assert answers.loss is not None
        images, prompts = torch.tensor(places, dtype=torch.int64)[answers.has_seg.cpu()].T.to(answers.states.device)
        valid, iou = batch.candidate_valid[images], batch.overlaps.iou[images, prompts]
        embeddings = self.mask_embeddings(batch.candidate_features)[images]
        similarity, iop = self._compare(embeddings, answers.states[answers.has_seg], valid)
        losses = {"text": answers.loss}
        total = self.text_weight * answers.loss
        if self.iop_head is not None and len(images):
            losses["iop"] = iop_loss(iop, batch.overlaps.iop[images, prompts], valid)
            total = total + self.iop_weight * losses["iop"]
        target = batch.overlaps.any_target[images, prompts]
        similarity, iou, valid = similarity[target], iou[target], valid[target]
        if self.iou_head is not None and len(iou):
            losses["iou"] = alignment_loss(similarity, iou, valid, self.temperature, self.divergence)
            total = total + self.iou_weight * losses["iou"]
        return {"loss": total, **losses}, similarity, iou, valid

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """The losses; "top_iou", the mean IoU of the most similar candidate; "best_iou", that of the best candidate."""
        losses, similarity, iou, valid = self._losses(batch)
        if self.iou_head is None or len(iou) == 0:
            return losses
        chosen = similarity.masked_fill(~valid, -torch.inf).argmax(-1, keepdim=True)
        return losses | {"top_iou": iou.gather(-1, chosen).mean(), "best_iou": iou.amax(-1).mean()}

    # --- state --------------------------------------------------------------------------------------------------

    def learned_state(self) -> dict[str, Tensor]:
        """Trained parameters, the feature statistics, and a language model without its own files."""
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        buffers = self.reader.mask_tokenizer.named_buffers(prefix="reader.mask_tokenizer")
        lmm = {} if self.lmm.has_own_files else dict(cast(nn.Module, self.lmm).named_parameters("reader.lmm"))
        return {**trained, **dict(buffers), **lmm}
