"""RAS: a language model reads all candidates and scores them in one pass (arXiv 2506.05342).

    image -> proposer -> candidates -> encoders, mask pooling -> features -> projector -> tokens
    mask tokens + prompt -> language model -> hidden state of each candidate -> head -> scores

Proposer, encoders and vision tower are frozen. Stage 1 trains only the mask projector, by captioning images from mask
tokens without image tokens. Stage 2 trains everything else.

Shape letters: B images, P prompts, N candidates, R references, C pooled channels, D width.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import checkpoints, needs
from maskselect.backends.weightless import reads_weights
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.structures.features import FeatureMap
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import CAPTION_TOKENS, FRAME_TOKENS, PROMPT_TOKENS, Arguments, Need
from maskselect.structures.protocols import LanguageModel, Proposer
from maskselect.structures.sample import Batch
from maskselect.systems import scoring
from maskselect.systems.autoregressive_scorer import AutoregressiveScorer
from maskselect.systems.candidates import CandidateSystem
from maskselect.systems.decoder_scorer import DecoderScorer, DecoderSettings
from maskselect.systems.reading import Reader
from maskselect.systems.scoring import ParallelScorer, ReadImages, Scorer
from maskselect.tokens import sequence
from maskselect.tokens.mask_tokenizer import MaskTokenizer, PreTokens
from maskselect.tokens.sequence import SecondPass, Segment, Slot

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds that validation compares; the best by F1 is stored with the checkpoint."""

_LM_HEAD = "reader.lmm.model.lm_head.weight"


class RAS(CandidateSystem):
    """The RAS system.

    Args:
        proposer: proposes the candidates.
        encoders: the frozen ensemble whose feature maps are pooled under masks.
        lmm: the language model.
        stage: 1 trains the mask projector by captioning; 2 trains all but the visual encoders by selection.
        stage_1_trains: "projector", as in the paper, or "all", for a captioner.
        scorer: "parallel" (the paper's system), "autoregressive" (its baseline, Table 7), or "decoder", beside a frozen
            language model (VGent, arXiv 2512.11099; see `systems/decoder_scorer.py`).
        decoder: settings of the scorer "decoder"; None for the defaults.
        second_pass: visibility among candidates in the second pass. The paper feeds the candidates again, without a
            word about attention, which is "causal"; "mutual" is ours.
        pre_tokens: RAS, Table C.
        standardise: see `MaskTokenizer`; our addition.
        proposal_score: append the proposer's score of a mask to its features (1 for a reference mask). This is our
            addition: half an object has nearly the mean feature of the object.
        image_tokens: whether the language model reads image tokens.
        positive_weight: weight of positive candidates in the loss of the scorer "parallel".
        duplicates_iou: of two chosen candidates with a higher IoU only the better one is in the group; our addition.
            None keeps both, as in the paper.
        start: checkpoint of an earlier stage to start from, see `load_learned`.
        language_start: checkpoint of RAS with other encoders, of which the language model and the scorer are taken.

    Raises:
        FileNotFoundError: if a checkpoint to start from is missing.
        ValueError: if it does not fit or settings exclude each other.
    """

    name = "ras"
    title, paper = "RAS", "2506.05342"
    summary = (
        "candidate masks become tokens, a language model reads all of them together with the prompt, and a head scores "
        "each from its hidden state"
    )

    def __init__(
        self,
        proposer: Proposer,
        encoders: EncoderEnsemble,
        lmm: LanguageModel,
        stage: Literal[1, 2] = 2,
        stage_1_trains: Literal["projector", "all"] = "projector",
        scorer: Literal["parallel", "autoregressive", "decoder"] = "parallel",
        decoder: DecoderSettings | None = None,
        second_pass: SecondPass = "mutual",
        pre_tokens: PreTokens = "different",
        standardise: bool = True,
        proposal_score: bool = True,
        image_tokens: bool = True,
        positive_weight: float = 5.0,
        duplicates_iou: float | None = 0.5,
        start: str | None = None,
        language_start: str | None = None,
    ) -> None:
        if start is not None and language_start is not None:
            raise ValueError(f"start {start} and language_start {language_start} exclude each other")
        channels = encoders.channels + int(proposal_score)
        tokenizer = MaskTokenizer(channels, lmm.width, pre_tokens, standardise)
        super().__init__(proposer, encoders, Reader(lmm, tokenizer))
        self.channels, self.duplicates_iou = channels, duplicates_iou
        self.stage, self.captions = stage, stage == 1
        self.image_tokens = image_tokens
        self.proposal_score = proposal_score
        if decoder is not None and scorer != "decoder":
            raise ValueError(f"decoder is only for scorer 'decoder', but scorer is {scorer!r}")
        self.scorer: Scorer
        if scorer == "decoder":
            self.scorer = DecoderScorer(lmm, decoder or DecoderSettings())
        elif scorer == "autoregressive":
            self.scorer = AutoregressiveScorer(lmm.width)
        else:
            self.scorer = ParallelScorer(lmm.width, second_pass, positive_weight)
        if not self.scorer.trains_language_model:
            if stage == 1 and stage_1_trains == "all":
                raise ValueError(
                    f"scorer {scorer!r} keeps the language model frozen, so stage_1_trains may not be 'all'"
                )
            cast(nn.Module, lmm).requires_grad_(False)
        if stage == 2 and lmm.output_layer is not None:
            lmm.output_layer.requires_grad_(False)  # selection writes no text
        if start is not None and reads_weights():
            self.load_learned(checkpoints.read_tensors(start), start)
        if language_start is not None and reads_weights():
            self._take_language_model(checkpoints.read_tensors(language_start), language_start)
        if stage == 1 and stage_1_trains == "projector":
            self.requires_grad_(False)
            self.reader.mask_tokenizer.requires_grad_(True)
        self.train()  # loaded parts are in evaluation mode, and Lightning does not change it

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The checkpoint to start from, and weights for a frozen language model."""
        begin = arguments.get("start") or arguments.get("language_start")
        start = needs.checkpoint(begin, "where training starts from")
        projector = arguments.get("stage") == 1 and arguments.get("stage_1_trains", "projector") == "projector"
        frozen = "scorer decoder" if arguments.get("scorer") == "decoder" else "stage 1" if projector else ""
        return start + needs.random_language_model(arguments, frozen)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        tokenizer = cast(MaskTokenizer, self.reader.mask_tokenizer)
        prefix = FRAME_TOKENS + (2 if len(tokenizer.pre) else 1) * candidates
        if self.stage == 1:
            return images * (prefix + CAPTION_TOKENS)
        prefix += self.lmm.most_image_tokens if self.image_tokens else 0
        return images * prefix + prompts * (PROMPT_TOKENS + candidates)

    def blocks(self) -> list[nn.Module]:
        """Layers of language model and scorer, which may be sharded one by one; raises as `Reader.blocks`."""
        return [*super().blocks(), *self.scorer.blocks]

    @property
    def uses_threshold(self) -> bool:
        """False if the scorer counts the group."""
        return self.scorer.uses_threshold

    @property
    def runs_every_part(self) -> bool:
        """Whether every batch runs the same modules equally often, forward and backward, as ZeRO-3 requires."""
        return self.stage == 2 and self.scorer.runs_every_part and self.lmm.gradient_checkpointing

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of trained parts; frozen parts stay in evaluation mode."""
        super().train(mode)
        if not self.scorer.trains_language_model:
            cast(nn.Module, self.lmm).eval()
        return self

    # --- features -----------------------------------------------------------------------------------------------

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """See `CandidateSystem.pool_features`."""
        if isinstance(masks, Tensor):
            masks = MaskSet(masks, torch.ones(len(masks), dtype=torch.float32), "given")
        pooled = self.encoders.pool(maps, masks.masks)
        return torch.cat([pooled, masks.scores.to(pooled)[:, None]], 1) if self.proposal_score else pooled

    @torch.no_grad()
    def read_candidates(self, image: np.ndarray, candidate_features: Tensor) -> ReadImages:
        """Read an image (H, W, 3) uint8 and its candidates (N, C) once for all prompts."""
        batch = self._candidate_batch(candidate_features)
        features = self.picture_features(image) if self.image_tokens else None
        return self.scorer.read(
            self.reader, replace(batch, image_features=features, image_grids=self.image_grids(image))
        )

    @torch.no_grad()
    def score_candidates(
        self, read: ReadImages, prompts: list[str], references: list[Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """See `CandidateSystem.score_candidates`; candidates are chosen by the threshold or by the scorer's count."""
        device = read.tokens.candidates.device
        features = torch.cat(references) if references else torch.zeros(0, self.channels, dtype=torch.float32)
        tokens = self.reader.mask_tokenizer(features.to(device))
        return self.scorer.answer(self.reader, read, prompts, tokens, threshold)

    @torch.no_grad()
    def caption(self, candidate_features: Tensor, max_new_tokens: int = 64) -> str:
        """A greedy caption from the mask tokens of an image, (N, C); for a system of stage 1."""
        tokens = self.reader.tokens(self._candidate_batch(candidate_features))
        prefix = self.reader.caption_prefix(list(range(len(candidate_features))))
        embedded = self.reader.embed(sequence.pack([(prefix, [])]).to(tokens.candidates.device), tokens)
        return self.lmm.decode(self.lmm.generate(embedded, max_new_tokens).ids[0])

    def _candidate_batch(self, features: Tensor) -> Batch:
        """A batch of one image with candidates (N, C), without prompts and image features."""
        device = next(self.reader.parameters()).device
        valid = torch.ones(1, len(features), dtype=torch.bool, device=device)
        return Batch(features[None].to(device), valid, None, [[]], [[]])

    # --- training -----------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, P, N) of every candidate for every prompt."""
        return self.scorer.logits(self.reader, self._visible(batch))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the stage; "loss" is minimised. The first training batch sets the feature statistics."""
        if self.training:
            self.reader.mask_tokenizer.fit_statistics(batch.candidate_features[batch.candidate_valid])
        return self.caption_loss(batch) if self.stage == 1 else self.scorer.loss(self.reader, self._visible(batch))

    def _visible(self, batch: Batch) -> Batch:
        """The batch without image features if the language model reads no image tokens."""
        return batch if self.image_tokens else replace(batch, image_features=None)

    def caption_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Stage 1: cross entropy of captions after mask tokens. Raises ValueError without captions."""
        if batch.captions is None:
            raise ValueError("stage 1 needs captions in its batches")
        blind = replace(batch, image_features=None, reference_features=[[] for _ in batch.captions])
        tokens = self.reader.tokens(blind)
        end = [self.lmm.tokenizer.eos_token_id]
        rows = []
        orders = scoring.candidate_orders(batch.candidate_valid, shuffle=self.training)
        for order, caption in zip(orders, batch.captions, strict=True):
            prefix = self.reader.caption_prefix(order)
            ids = self.lmm.token_ids(caption) + end
            positions = list(range(len(prefix), len(prefix) + len(ids)))
            rows.append((prefix, [[Segment([int(Slot.TEXT)] * len(ids), ids, positions)]]))
        packed = sequence.pack(rows).to(tokens.candidates.device)
        visible = sequence.visibility(packed, "causal")
        hidden = self.lmm.hidden(self.reader.embed(packed, tokens), visible, packed.positions)
        in_caption = packed.blocks[:, 1:] == 0
        logits = self.lmm.token_logits(hidden[:, :-1][in_caption]).float()
        return {"loss": F.cross_entropy(logits, packed.values[:, 1:][in_caption])}

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Validation scalars: the losses and, in stage 2, metrics at each threshold t.

        "exact@t" is the share of prompts whose group is exactly right, "f1@t" the mean F1 of the candidates of a prompt
        (1 for two empty groups). Candidates that the labels ignore do not count.
        """
        out = self.loss(batch)
        labels = None if self.stage == 1 else self.scorer.labels(batch)
        if labels is None:
            return out
        counted, targets = labels >= 0, labels > 0
        exists = counted.any(-1)
        probabilities = self.forward(batch).sigmoid()
        for threshold in THRESHOLDS:
            chosen = (probabilities >= threshold) & counted
            hits, sizes = (chosen & targets).sum(-1), chosen.sum(-1) + targets.sum(-1)
            f1 = torch.where(sizes > 0, 2 * hits / sizes.clamp(min=1), 1.0)
            out[f"f1@{threshold}"] = f1[exists].mean()
            out[f"exact@{threshold}"] = (chosen == targets).all(-1)[exists].float().mean()
        return out

    # --- state --------------------------------------------------------------------------------------------------

    def learned_state(self) -> dict[str, Tensor]:
        """All tensors except proposer, encoder backbones, and the frozen ones of a language model with its own files.

        Raises:
            RuntimeError: if an omitted parameter is trainable.
        """
        left_out = ("proposer.", "encoders.encoder_")
        for name, parameter in self.named_parameters():
            if name.startswith(left_out) and parameter.requires_grad:
                raise RuntimeError(f"{name} is trainable but checkpoints leave it out")
        elsewhere = {f"reader.lmm.{name}" for name in self.lmm.frozen_elsewhere}
        elsewhere |= {_LM_HEAD} if self.lmm.output_layer is None else set()
        return {k: v for k, v in self.state_dict().items() if not k.startswith(left_out) and k not in elsewhere}

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load the tensors of a checkpoint, see `CandidateSystem.load_learned`.

        A checkpoint without the parts of the scorer is a start for training: one of stage 1 has no head; from one of
        the scorer "parallel" the scorer "decoder" takes the head and copies the language model.
        """
        super().load_learned(tensors, origin)
        if self.scorer.begins_with(tensors):
            self.scorer.begin(self.lmm)

    def _take_language_model(self, tensors: dict[str, Tensor], origin: str) -> None:
        """Take the language model and the scorer; what depends on the encoders stays as it is."""
        parts = ("reader.lmm.model.model.language_model.", "scorer.")
        expected = {name: tensor for name, tensor in self.learned_state().items() if name.startswith(parts)}
        taken = {name: tensor.float() for name, tensor in tensors.items() if name.startswith(parts)}
        checkpoints.check_fit(expected, taken, origin, f"the language model of {self.title} as configured")
        self.load_state_dict(taken, strict=False)

    def completed(self, tensors: dict[str, Tensor], learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add the scorer for a start, and a language model with its own files if the checkpoint has nothing of it."""
        omitted = ["scorer."] if self.scorer.begins_with(tensors) else []
        if self.lmm.has_own_files and not any(name.startswith("reader.lmm.") for name in tensors):
            omitted.append("reader.lmm.")
        return {name: tensor for name, tensor in learned.items() if name.startswith(tuple(omitted))} | tensors
