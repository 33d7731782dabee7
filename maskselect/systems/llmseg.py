"""LLM-Seg: candidates chosen by their likeness to `[SEG]` and by how pure they are (arXiv 2404.08767).

    image -> proposer -> candidates -> encoder, mask pooling -> features -> 1x1 convolution -> mask embeddings
    image + question -> language model -> an answer with [SEG] -> hidden state -> projection
    mask embeddings + [SEG] -> fusion -> IoU head (similarity), IoP head (regression) -> group

Proposer, encoder and vision tower are frozen, and the language model but for LoRA.

Two things are ours. A `<mask-ref>` in a question becomes a mask token, as in RAS; the paper has no references. And
where nothing is meant, the answer holds no `[SEG]`, so the group is empty, and IoP is learned to be 0 in case it does;
the paper trains no such questions.

Paper and released code differ; the default is the code, and the arguments say so.

Shape letters: B images, P prompts, N candidates, C pooled channels, D width of the language model, E of the fusion.
"""

from dataclasses import dataclass, replace
from pathlib import Path
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
from maskselect.lmm.lora import fit_adapters
from maskselect.losses.overlap import Divergence, alignment_loss, iop_loss
from maskselect.structures.features import FeatureMap
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import ANSWER_TOKENS, FRAME_TOKENS, PROMPT_TOKENS, Arguments, Need
from maskselect.structures.protocols import LanguageModel, Proposer
from maskselect.structures.sample import Batch
from maskselect.systems import questions
from maskselect.systems.answering import Answers, generated_answers, given_answers
from maskselect.systems.candidates import CandidateSystem
from maskselect.systems.reading import Reader
from maskselect.systems.scoring import ReadImages, read_images
from maskselect.tokens.mask_tokenizer import MaskTokenizer, NoMaskTokens

Answering = Literal["generated", "teacher_forced"]

DOUBTED = 0.5
"""Share of prompts without a target that are trained as if the answer held `[SEG]`, with IoP 0 everywhere.

Where the language model errs, the group shall still be empty. Ours, as such prompts are."""


@dataclass(frozen=True)
class ReadCandidates:
    """One image, read. image: its tokens and cache.  embeddings: (N, E) of its candidates, before any fusion."""

    image: ReadImages
    embeddings: Tensor


class LLMSeg(CandidateSystem):
    """The LLM-Seg system.

    Args:
        proposer: where candidates come from.
        encoders: frozen; the paper's is DINOv2 alone.
        lmm: the language model, with LoRA as published, or without, which trains all of it.
        width, heads, mlp_dim, depth: of the fusion.
        fusion, iou_head, iop_head: whether these parts exist (Table 2).
        head_form: widths of the heads, "released" or "paper", see `heads/overlap.py`.
        similarity: of mask and `[SEG]`: "cosine" (released) or "dot" (paper).
        divergence: see `losses/overlap.py`.
        temperature: of the softmaxes; 0.05 in the code, "small" in the paper.
        iou_weight, iop_weight, text_weight: of the losses (Equation 4). The paper leaves out the language model's own
            loss, which is text_weight 0.
        train_embeddings: train token embeddings and output layer beside LoRA, as the released code does; the paper
            speaks of LoRA alone.
        train_projector: train the image projector too; ours, for compact models whose projector saw few images.
        references: whether prompts may point with `<mask-ref>`, which takes a mask projector (ours).
        strategy: which candidates are in the group, see `heads/strategies.py`.
        answering: "generated", or "teacher_forced", the published evaluation, which puts `[SEG]` into the model's
            mouth.
        phrasing: how prompts are asked and answered, see `systems/questions.py`.
        start: checkpoint of this system to start from.

    Raises ValueError when the strategy needs a head that is not there or no head is, FileNotFoundError or ValueError
    when `start` cannot be read or does not fit.
    """

    name = "llmseg"
    title, paper = "LLM-Seg", "2404.08767"
    summary = (
        "a language model answers the prompt with a token `[SEG]`, and heads score every candidate mask against it"
    )
    runs_every_part = False
    duplicates_iou = None
    """Candidates are joined to one mask, so none is dropped for being like another."""

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
        self.train()  # what is read from files comes in evaluation mode, and Lightning leaves modes as they are

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Where it starts from, and a language model that would stay random."""
        found = needs.checkpoint(arguments.get("start"), "where training starts from")
        return found + needs.random_language_model(arguments)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        return images * (FRAME_TOKENS + self.lmm.most_image_tokens) + prompts * (PROMPT_TOKENS + ANSWER_TOKENS)

    def _freeze(self) -> None:
        """Of the language model; what stands beside LoRA trains as the arguments say."""
        self.lmm.projector.requires_grad_(self.train_projector)
        for name, parameter in self.reader.named_parameters():
            if "embed_tokens" in name or "lm_head" in name:
                parameter.requires_grad_(self.train_embeddings)

    @property
    def uses_threshold(self) -> bool:
        """False for strategies that choose the most similar candidate at any threshold."""
        return self.strategy not in ("top_iou", "iop_or_top_iou")

    # --- features -----------------------------------------------------------------------------------------------

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """Features of masks of the image that `encode` saw, proposed or given as (N, H, W) bool: (N, C)."""
        return self.encoders.pool(maps, masks if isinstance(masks, Tensor) else masks.masks)

    def mask_embeddings(self, features: Tensor) -> Tensor:
        """Pooled features (..., N, C) to (..., N, E).

        The 1x1 convolution stands before the pooling in the paper; both are linear, so behind it gives the same, and
        frozen features need to be pooled only once.
        """
        flat = self.reader.mask_tokenizer.standardised(features).reshape(-1, self.channels, 1, 1)
        return cast(Tensor, self.mask_conv(flat)).reshape(*features.shape[:-1], self.mask_conv.out_channels)

    # --- inference ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def read_candidates(self, image: np.ndarray, candidate_features: Tensor) -> ReadCandidates:
        """Read an image once, for any number of prompts: (H, W, 3) uint8, (N, C)."""
        device = self.mask_conv.weight.device
        pixels = self.image_features(torch.from_numpy(image).permute(2, 0, 1)[None].float().to(device) / 255)
        batch = _without_candidates(pixels, self.image_grids(image), self.channels, [[]], [[]])
        return ReadCandidates(read_images(self.reader, batch), self.mask_embeddings(candidate_features.to(device)))

    @torch.no_grad()
    def score_candidates(
        self, read: ReadCandidates, prompts: list[str], references: list[Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Scores (P, N) in [0, 1] and the groups (P, N) bool of prompts on one image, on the CPU.

        references: for each prompt the pooled features of its reference masks, (R, C).
        Scores are IoP, or with strategy "top_iou" the similarity; 0 where the answer holds no `[SEG]`.
        """
        answers = self.answers(read, prompts, references)
        similarity, iop = self._judged(read.embeddings.expand(len(prompts), -1, -1), answers.states)
        chosen = choose(similarity, iop, self.strategy, threshold) & answers.found[:, None]
        scores = (similarity + 1) / 2 if self.strategy == "top_iou" else iop
        return (scores.clamp(0, 1) * answers.found[:, None]).float().cpu(), chosen.cpu()

    @torch.no_grad()
    def answers(self, read: ReadCandidates, prompts: list[str], references: list[Tensor]) -> Answers:
        """What the language model says to prompts on one image.

        Raises ValueError for references without `references`, and for a prompt with the answer's own `[SEG]` in it.
        """
        spoilt = next((prompt for prompt in prompts if questions.SEG in prompt), None)
        if spoilt is not None:
            raise ValueError(f"prompt {spoilt!r} holds {questions.SEG}, which only an answer may; ask without it")
        device = read.embeddings.device
        none = torch.zeros(0, self.channels, dtype=torch.float32, device=device)
        tokens = self.reader.mask_tokenizer(torch.cat([none, *(r.to(device) for r in references)]))
        asked = [questions.ask(prompt, None, self.phrasing) for prompt in prompts]
        if self.answering == "generated":
            return generated_answers(self.reader, read.image, asked, tokens, self.seg_id)
        held = replace(read.image, tokens=replace(read.image.tokens, references=tokens[None]))
        return given_answers(
            self.reader, held, [asked], [[questions.answer(True, None, self.phrasing)] * len(asked)], self.seg_id
        )

    def _judged(self, embeddings: Tensor, states: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Similarity and IoP (R, N) of candidates (R, N, E) for hidden states (R, D); zeros where a head is missing."""
        text = self.text_projection(states)
        if embeddings.shape[1] == 0:
            return embeddings.new_zeros(embeddings.shape[:2]), embeddings.new_zeros(embeddings.shape[:2])
        masks = embeddings if self.fusion is None else self.fusion(embeddings, text[:, None], valid)
        similarity = iop = masks.new_zeros(masks.shape[:2])
        if self.iou_head is not None:
            found = self.iou_head(masks)
            if self.similarity == "cosine":
                found, text = F.normalize(found, dim=-1), F.normalize(text, dim=-1)
            similarity = torch.einsum("rne,re->rn", found, text)
        if self.iop_head is not None:
            iop = self.iop_head(masks)
        return similarity, iop

    # --- training -----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars by name; "loss" is minimised. Raises ValueError for a batch without overlaps."""
        return self._losses(batch)[0]

    def _losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """The losses, and of every prompt with a target: similarity, IoU, and which candidates are real, (R, N)."""
        if batch.overlaps is None or batch.image_features is None:
            raise ValueError("LLM-Seg trains on batches with overlaps and image features")
        if self.training:
            self.reader.mask_tokenizer.fit_statistics(batch.candidate_features[batch.candidate_valid])
        rng = np.random.default_rng(int(torch.randint(2**31, ()))) if self.training else None
        asked = [[questions.ask(text, rng, self.phrasing) for text in texts] for texts in batch.prompts]
        places = [(image, prompt) for image, texts in enumerate(asked) for prompt in range(len(texts))]
        present = [bool(batch.overlaps.any_target[place]) for place in places]
        meant = [own or rng is None or self.iop_head is None or rng.random() >= DOUBTED for own in present]
        answered = [own or not sure for own, sure in zip(present, meant, strict=True)]
        texts = iter([questions.answer(any_target, rng, self.phrasing) for any_target in answered])
        said = [[next(texts) for _ in own] for own in asked]
        seen = batch.image_features, batch.image_grids
        blind = _without_candidates(*seen, self.channels, asked, batch.reference_features)
        answers = given_answers(self.reader, read_images(self.reader, blind), asked, said, self.seg_id, meant)
        assert answers.loss is not None
        images, prompts = torch.tensor(places, dtype=torch.int64)[answers.found.cpu()].T.to(answers.states.device)
        valid, iou = batch.candidate_valid[images], batch.overlaps.iou[images, prompts]
        embeddings = self.mask_embeddings(batch.candidate_features)[images]
        similarity, iop = self._judged(embeddings, answers.states[answers.found], valid)
        losses = {"text": answers.loss}
        total = self.text_weight * answers.loss
        if self.iop_head is not None and len(images):
            losses["iop"] = iop_loss(iop, batch.overlaps.iop[images, prompts], valid)
            total = total + self.iop_weight * losses["iop"]
        known = batch.overlaps.any_target[images, prompts]
        similarity, iou, valid = similarity[known], iou[known], valid[known]
        if self.iou_head is not None and len(iou):
            losses["iou"] = alignment_loss(similarity, iou, valid, self.temperature, self.divergence)
            total = total + self.iou_weight * losses["iou"]
        return {"loss": total, **losses}, similarity, iou, valid

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """The losses; "top_iou", the mean IoU of the most similar candidate, beside "best_iou", the best there is."""
        losses, similarity, iou, valid = self._losses(batch)
        if self.iou_head is None or len(iou) == 0:
            return losses
        chosen = similarity.masked_fill(~valid, -torch.inf).argmax(-1, keepdim=True)
        return losses | {"top_iou": iou.gather(-1, chosen).mean(), "best_iou": iou.amax(-1).mean()}

    # --- state --------------------------------------------------------------------------------------------------

    def learned_state(self) -> dict[str, Tensor]:
        """What trains, the statistics of the features, and a language model that comes from no file: all that a
        checkpoint of this system holds."""
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        buffers = self.reader.mask_tokenizer.named_buffers(prefix="reader.mask_tokenizer")
        drawn = {} if self.lmm.has_own_files else dict(cast(nn.Module, self.lmm).named_parameters("reader.lmm"))
        return {**trained, **dict(buffers), **drawn}

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load what `learned_state` gave. With LoRA in the file and none here, or the other way round, see
        `fit_adapters`.

        Raises ValueError when anything is missing, unknown or of another shape, and as `without_frozen` does.
        """
        own, held = self.learned_state(), self.state_dict()
        tensors = fit_adapters(tensors, held, origin, "reader.lmm." if self.lmm.has_own_files else None)
        # A file may hold more of a language model than it must.
        own |= {k: held[k] for k in tensors if k.startswith("reader.lmm.") and k in held}
        checkpoints.check_fit(own, tensors, str(origin), "LLM-Seg as configured")
        self.load_state_dict(self.without_frozen(tensors, origin), strict=False)


def _without_candidates(
    image_features: Tensor,
    image_grids: Tensor | None,
    channels: int,
    prompts: list[list[str]],
    references: list[list[Tensor]],
) -> Batch:
    """A batch for a language model that reads images and prompts, and no candidates."""
    none = image_features.new_zeros(len(image_features), 0, channels)
    return Batch(none, none[..., 0].bool(), image_features, prompts, references, image_grids=image_grids)
