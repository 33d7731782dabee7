"""RAS: mask groups by reading all candidates at once (arXiv 2506.05342).

    image -> proposer -> candidates -> encoders, mask pooling -> features -> projector -> tokens
    mask tokens + prompt -> language model -> hidden state of each candidate -> head -> scores

The proposer, the encoders and the vision tower are frozen. Stage 1 trains the mask projector alone, by captioning
images from their mask tokens without image tokens. Stage 2 trains everything else.

Shape letters: B images, P prompts, N candidates, R references, C pooled channels, D width.
"""

from pathlib import Path
from typing import Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import checkpoints, needs
from maskselect.backends.weightless import reads_weights
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.lmm.lora import fit_adapters
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


_WORDS = "reader.lmm.model.lm_head.weight"
"""The output layer, which captions need and selection does not."""


def make_scorer(
    scorer: Literal["parallel", "autoregressive", "decoder"],
    lmm: LanguageModel,
    decoder: DecoderSettings | None,
    second_pass: SecondPass,
    positive_weight: float,
) -> Scorer:
    """The scorer of that name; the arguments are those of `RAS`. Raises ValueError for settings of another scorer."""
    if scorer == "decoder":
        return DecoderScorer(lmm, decoder or DecoderSettings())
    if decoder is not None:
        raise ValueError(f"decoder is for scorer 'decoder' alone, and scorer is {scorer!r}")
    if scorer == "autoregressive":
        return AutoregressiveScorer(lmm.width)
    return ParallelScorer(lmm.width, second_pass, positive_weight)


class RAS(CandidateSystem):
    """The RAS system.

    Args:
        proposer: where candidates come from.
        encoders: the frozen ensemble under whose maps masks are pooled.
        lmm: the language model.
        stage: 1 trains the mask projector by captioning; 2 trains all but the visual encoders by selection.
        stage_1_trains: "projector" alone, as in the paper, or "all", which makes a model that captions.
        scorer: "parallel" (the paper's system), "autoregressive" (its baseline, Table 7), or "decoder", beside a
            language model that stays frozen (VGent, arXiv 2512.11099; see `systems/decoder_scorer.py`).
        decoder: for the scorer "decoder" alone; None takes its defaults.
        second_pass: how candidates see each other when they are read again; not stated in the paper.
        pre_tokens: RAS, Table C.
        proposal_score: append the proposer's own score of a mask to its features (1 for a mask that was given). This is
            ours, not the paper's: from a mean feature alone half an object looks like the object.
        image_tokens: whether the language model also sees the image itself.
        positive_weight: weight of positive candidates in the loss of the scorer "parallel".
        start: checkpoint of an earlier stage to start from, see `load_learned`.

    Raises FileNotFoundError or ValueError when `start` cannot be read or does not fit; ValueError for settings that
    exclude each other.
    """

    name = "ras"
    title, paper = "RAS", "2506.05342"
    summary = (
        "candidate masks become tokens, a language model reads all of them together with the prompt, and a head scores "
        "each from its hidden state"
    )
    duplicates_iou: float | None = 0.5
    """Of two chosen candidates that overlap more than this only the better one stays: they are the same thing twice."""

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
        proposal_score: bool = True,
        image_tokens: bool = True,
        positive_weight: float = 5.0,
        start: str | None = None,
    ) -> None:
        channels = encoders.channels + int(proposal_score)
        super().__init__(proposer, encoders, Reader(lmm, MaskTokenizer(channels, lmm.width, pre_tokens)))
        self.channels = channels
        self.stage, self.captions = stage, stage == 1
        self.image_tokens = image_tokens
        self.proposal_score = proposal_score
        self.scorer = make_scorer(scorer, lmm, decoder, second_pass, positive_weight)
        if not self.scorer.trains_language_model:
            if stage == 1 and stage_1_trains == "all":
                raise ValueError(
                    f"scorer {scorer!r} keeps the language model frozen, so stage_1_trains may not be 'all'"
                )
            cast(nn.Module, lmm).requires_grad_(False)
        if stage == 2 and lmm.output_layer is not None:
            lmm.output_layer.requires_grad_(False)  # selecting writes no words
        if start is not None and reads_weights():
            self.load_learned(checkpoints.read_tensors(start), start)
        if stage == 1 and stage_1_trains == "projector":
            self.requires_grad_(False)
            self.reader.mask_tokenizer.requires_grad_(True)
        self.train()  # what is read from files comes in evaluation mode, and Lightning leaves modes as they are

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """Where it starts from, and a language model that would stay random."""
        found = needs.checkpoint(arguments.get("start"), "where training starts from")
        projector = arguments.get("stage") == 1 and arguments.get("stage_1_trains", "projector") == "projector"
        frozen = "scorer decoder" if arguments.get("scorer") == "decoder" else "stage 1" if projector else ""
        return found + needs.random_language_model(arguments, frozen)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        tokenizer = cast(MaskTokenizer, self.reader.mask_tokenizer)
        announced = 2 if len(tokenizer.pre) else 1
        of_image = FRAME_TOKENS + announced * candidates
        if self.stage == 1:
            return images * (of_image + CAPTION_TOKENS)
        seen = self.lmm.most_image_tokens if self.image_tokens else 0
        return images * (of_image + seen) + prompts * (PROMPT_TOKENS + candidates)

    def blocks(self) -> list[nn.Module]:
        """Layers of the language model and of the scorer, which may be sharded one by one.

        Raises ValueError without gradient checkpointing.
        """
        return [*super().blocks(), *self.scorer.blocks]

    @property
    def uses_threshold(self) -> bool:
        """False where the scorer counts the group."""
        return self.scorer.uses_threshold

    @property
    def runs_every_part(self) -> bool:
        """Whether every batch goes through the same modules, as often, and back: ZeRO-3 asks it of all processes."""
        return self.stage == 2 and self.scorer.runs_every_part and self.lmm.gradient_checkpointing

    def train(self, mode: bool = True) -> Self:
        """Training mode for what trains; the frozen parts always stay in evaluation mode."""
        super().train(mode)
        if not self.scorer.trains_language_model:
            cast(nn.Module, self.lmm).eval()
        return self

    # --- features -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def read_candidates(self, image: np.ndarray, candidate_features: Tensor) -> ReadImages:
        """Read an image and its candidates once, for any number of prompts.

        image: (H, W, 3) uint8.  candidate_features: (N, C).
        """
        device = next(self.reader.parameters()).device
        pixels = None
        if self.image_tokens:
            pixels = self.image_features(torch.from_numpy(image).permute(2, 0, 1)[None].float().to(device) / 255)
        valid = torch.ones(1, len(candidate_features), dtype=torch.bool, device=device)
        grids = self.image_grids(image)
        batch = Batch(candidate_features[None].to(device), valid, pixels, [[]], [[]], image_grids=grids)
        return self.scorer.read(self.reader, batch)

    @torch.no_grad()
    def score_candidates(
        self, read: ReadImages, prompts: list[str], references: list[Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Scores (P, N) and the chosen candidates (P, N) bool: those that reach the threshold, unless the scorer counts
        them. See `CandidateSystem.score_candidates`."""
        device = read.tokens.candidates.device
        features = torch.cat(references) if references else torch.zeros(0, self.channels, dtype=torch.float32)
        tokens = self.reader.mask_tokenizer(features.to(device))
        return self.scorer.answer(self.reader, read, prompts, tokens, threshold)

    @torch.no_grad()
    def caption(self, candidate_features: Tensor, max_new_tokens: int = 64) -> str:
        """What stage 1 lets the language model say of an image from its mask tokens alone: (N, C) to a greedy caption.

        After stage 2 it has mostly forgotten how.
        """
        device = next(self.reader.parameters()).device
        valid = torch.ones(1, len(candidate_features), dtype=torch.bool, device=device)
        batch = Batch(candidate_features[None].to(device), valid, None, [[]], [[]])
        prefix = self.reader.caption_prefix(list(range(len(candidate_features))))
        packed = sequence.pack([(prefix, [])]).to(device)
        embedded = self.reader.embed(packed, self.reader.tokens(batch))
        return self.lmm.decode(self.lmm.generate(embedded, max_new_tokens).ids[0])

    # --- training -----------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, P, N) of every candidate for every prompt."""
        return self.scorer.logits(self.reader, self._seen(batch))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the stage, by name; "loss" is minimised. The first training batch sets the feature statistics."""
        if self.training:
            self.reader.mask_tokenizer.fit_statistics(batch.candidate_features[batch.candidate_valid])
        return self.caption_loss(batch) if self.stage == 1 else self.scorer.loss(self.reader, self._seen(batch))

    def _seen(self, batch: Batch) -> Batch:
        if self.image_tokens or batch.image_features is None:
            return batch
        return Batch(**{**vars(batch), "image_features": None})

    def caption_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Stage 1: cross entropy of captions behind mask tokens alone.

        Raises ValueError for a batch without captions.
        """
        if batch.captions is None:
            raise ValueError("stage 1 needs captions in its batches")
        blind = Batch(**{**vars(batch), "image_features": None, "reference_features": [[] for _ in batch.captions]})
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
        seen = sequence.visibility(packed, "causal")
        hidden = self.lmm.hidden(self.reader.embed(packed, tokens), seen, packed.positions)
        answered = packed.blocks[:, 1:] == 0
        logits = self.lmm.token_logits(hidden[:, :-1][answered]).float()
        return {"loss": F.cross_entropy(logits, packed.values[:, 1:][answered])}

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Validation scalars: the loss and, in stage 2, what each threshold would give.

        "exact@t" is the share of prompts whose group is exactly right, "f1@t" the mean F1 of a prompt's candidates (1
        for two empty groups), both at threshold t. Candidates that the labels leave out are not counted.
        """
        out = self.loss(batch)
        labels = None if self.stage == 1 else self.scorer.labels(batch)
        if labels is None:
            return out
        asked = labels.ge(0).any(-1)
        counted, wanted = labels >= 0, labels > 0
        probabilities = self.forward(batch).sigmoid()
        for threshold in THRESHOLDS:
            chosen = (probabilities >= threshold) & counted
            hits, sizes = (chosen & wanted).sum(-1), chosen.sum(-1) + wanted.sum(-1)
            f1 = torch.where(sizes > 0, 2 * hits / sizes.clamp(min=1), 1.0)
            out[f"f1@{threshold}"] = f1[asked].mean()
            out[f"exact@{threshold}"] = (chosen == wanted).all(-1)[asked].float().mean()
        return out

    # --- state --------------------------------------------------------------------------------------------------

    def learned_state(self) -> dict[str, Tensor]:
        """Every tensor that a checkpoint of this system holds.

        That is all but the proposer, the encoder backbones, and what is frozen in a language model with files of its
        own.

        Raises RuntimeError when a parameter that is left out could have been trained.
        """
        left_out = ("proposer.", "encoders.encoder_")
        for name, parameter in self.named_parameters():
            if name.startswith(left_out) and parameter.requires_grad:
                raise RuntimeError(f"{name} is trainable but checkpoints leave it out")
        elsewhere = {f"reader.lmm.{name}" for name in self.lmm.frozen_elsewhere}
        elsewhere |= {_WORDS} if self.lmm.output_layer is None else set()
        return {k: v for k, v in self.state_dict().items() if not k.startswith(left_out) and k not in elsewhere}

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load what `learned_state` gave. A file of stage 1 has no head; then ours stays as it is. So does a language
        model with files of its own when the file has nothing of it, as one that was imported. A file of the scorer
        "parallel" is a beginning for "decoder": its head is taken, and the decoder copies its language model.

        With LoRA in the file and none here, or the other way round, see `fit_adapters`.

        Raises ValueError when anything else is missing, unknown or of another shape, or when what is frozen and comes
        from files of its own is another in this one: it would be so only until it is loaded again.
        """
        own, held = self.learned_state(), self.state_dict()
        tensors = fit_adapters(tensors, held, origin, "reader.lmm." if self.lmm.has_own_files else None)
        # A file may hold more of a language model than it must: all of it, or the output layer that captions need.
        own |= {k: held[k] for k in tensors if k.startswith("reader.lmm.") and k in held}
        complete = dict(tensors)
        begins = self.scorer.begins_with(tensors)
        if begins:
            complete = {k: v for k, v in own.items() if k.startswith("scorer.")} | complete
        if self.lmm.has_own_files and not any(k.startswith("reader.lmm.") for k in tensors):
            complete |= {k: v for k, v in own.items() if k.startswith("reader.lmm.")}
        checkpoints.check_fit(own, complete, str(origin), "RAS as configured")
        self.load_state_dict(self.without_frozen(complete, origin), strict=False)
        if begins:
            self.scorer.begin(self.lmm)

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """Features of masks of the image that `encode` saw, proposed or given as (N, H, W) bool: (N, C)."""
        given = (
            MaskSet(masks, torch.ones(len(masks), dtype=torch.float32), "given") if isinstance(masks, Tensor) else masks
        )
        pooled = self.encoders.pool(maps, given.masks)
        return torch.cat([pooled, given.scores.to(pooled)[:, None]], 1) if self.proposal_score else pooled
