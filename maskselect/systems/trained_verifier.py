"""The verifier of zero-shot selection, trained to answer yes or no (ours).

A frozen proposer gives candidates of annotated pictures. For each the language model is asked about many prompts, and
learns by binary cross entropy of the probability of "yes" against "no" whether the candidate is a target. Layout and
questions are those of `systems/verifying.py`. In training a row asks all questions about its region at once, and the
picture is read once for all rows.

Shape letters: B pictures, R regions, Q questions, T image tokens, E width of the tower.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskselect.backends import checkpoints, needs
from maskselect.backends.weightless import reads_weights
from maskselect.lmm.lora import fit_adapters
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.needs import FRAME_TOKENS, PROMPT_TOKENS, Arguments, Need
from maskselect.structures.protocols import LanguageModel, Proposer
from maskselect.systems.language_system import image_projector
from maskselect.systems.region_batches import RegionBatch, RegionPreparer
from maskselect.systems.verifying import Phrasing, Shown, Verifier
from maskselect.systems.zero_shot import ZeroShot

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Thresholds that validation compares; the best by F1 is stored with the checkpoint."""
_LMM = "verifier.lmm."
_OTHER = "reader.lmm."
"""Prefixes of the language model in a checkpoint of this system, and of others."""


class TrainedVerifier(ZeroShot):
    """Verifies every candidate of a proposer with a language model that is trained for it. Reads pictures only.

    Args:
        proposer: proposes the candidates.
        lmm: the language model, whose images have a fixed number of tokens.
        shortlist: number of candidates that are verified for a prompt, in the order of the proposer's scores.
        duplicates_iou: see `ZeroShot`.
        picture_side, view_side, crop_side, rows, phrasing: see `Verifier`.
        candidates, references: of a picture in training, see `RegionPreparer`.
        positive_weight: weight of the answer yes in the loss; about four of five answers are no.
        start: checkpoint to start from: of this system, or the language model of one with the same vision tower, or of
            RAS with the same encoders, whose mask projector then also makes image tokens.

    Raises:
        FileNotFoundError: if `start` is missing.
        ValueError: if `start` does not fit, or the language model cannot be trained this way.
    """

    name = "verifier"
    title = "Trained verifier"
    summary = "a language model is asked about every candidate, outlined and up close, and answers yes or no"

    def __init__(
        self,
        proposer: Proposer,
        lmm: LanguageModel,
        shortlist: int = 64,
        duplicates_iou: float | None = 0.5,
        picture_side: int = 1024,
        view_side: int = 448,
        crop_side: int = 224,
        rows: int = 8,
        phrasing: Phrasing = "plain",
        candidates: int = 6,
        references: int = 1,
        positive_weight: float = 4.0,
        start: str | None = None,
    ) -> None:
        if lmm.images_on_grids or lmm.gradient_checkpointing:
            raise ValueError(
                "the verifier trains on image tokens of fixed number and on a key-value cache; expected a language "
                "model without images on grids and without gradient_checkpointing"
            )
        if candidates < 1 or references < 0:
            raise ValueError(f"candidates {candidates} and references {references}; expected at least 1 and 0")
        trained = [parameter for parameter in cast(nn.Module, lmm).parameters() if parameter.requires_grad]
        sides = picture_side, view_side, crop_side
        super().__init__(proposer, None, lmm, shortlist, duplicates_iou, *sides, rows, phrasing)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.candidates, self.references, self.positive_weight = candidates, references, positive_weight
        if start is not None and reads_weights():
            self._start(checkpoints.read_tensors(start), start)
        self.train()

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The checkpoint that it starts from, and weights of a language model that would stay random."""
        start = needs.checkpoint(arguments.get("start"), "where training starts from")
        return start + needs.random_language_model(arguments)

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Tokens that the language model reads in a training step."""
        picture = FRAME_TOKENS + self.lmm.most_image_tokens
        regions = self.candidates * (1 + self.references)
        return images * (picture + regions * 2 * picture) + prompts * self.candidates * PROMPT_TOKENS

    @property
    def lmm(self) -> LanguageModel:
        """The language model."""
        return self._verifier.lmm

    @property
    def _verifier(self) -> Verifier:
        assert self.verifier is not None
        return self.verifier

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The frozen networks that decide features."""
        return self.lmm.visual_parts

    @property
    def runs_every_part(self) -> bool:
        """False: a key-value cache and ZeRO-3 exclude each other."""
        return False

    def blocks(self) -> list[nn.Module]:
        """The layers of the language model."""
        return list(cast(nn.ModuleList, self.lmm.language_model.layers))

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        self.lmm.vision_tower.eval()
        if isinstance(self.proposer, nn.Module):
            self.proposer.eval()
        return self

    # --- training -----------------------------------------------------------------------------------------------

    def preparer(self, settings: PrepareSettings, training: bool) -> RegionPreparer:
        """Regions of candidates, with questions about prompts."""
        return RegionPreparer(self, settings, training, self.candidates, self.references)

    def logits(self, batch: RegionBatch) -> Tensor:
        """Log odds of "yes" of all questions of a batch, picture by picture: (Q,) float32."""
        out = [torch.zeros(0, dtype=torch.float32, device=batch.pictures.device)]
        for number, questions in enumerate(batch.questions):
            if not questions:
                continue
            features = [batch.pictures[number : number + 1], batch.views[number], batch.crops[number]]
            picture, *shown = self.lmm.project_image(torch.cat(features))
            images = [Shown(tokens, None) for tokens in shown]
            pairs = list(zip(images[: len(questions)], images[len(questions) :], strict=True))
            read, rows = self._verifier.read_tokens(Shown(picture, None)), self._verifier.rows
            for start in range(0, len(questions), rows):
                some = slice(start, start + rows)
                out.append(self._verifier.logits(read, pairs[some], questions[some]))
        return torch.cat(out)

    def loss(self, batch: RegionBatch) -> dict[str, Tensor]:
        """Binary cross entropy of the answers; "yes" and "no" are the shares of right answers to each kind."""
        return self._losses(batch)[0]

    def _losses(self, batch: RegionBatch) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, and the log odds of all questions."""
        logits, labels = self.logits(batch), torch.cat(batch.labels)
        if not len(labels):
            return {"loss": 0.0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()}, logits
        weight = logits.new_tensor(self.positive_weight)
        scalars = {"loss": F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)}
        for name, kind in (("yes", labels > 0.5), ("no", labels < 0.5)):
            if kind.any():
                scalars[name] = ((logits > 0) == (labels > 0.5))[kind].float().mean()
        return scalars, logits

    @torch.no_grad()
    def validate(self, batch: RegionBatch) -> dict[str, Tensor]:
        """The losses, and "f1@t", the mean F1 of the candidates of a prompt at each threshold t; 1 for empty groups."""
        out, logits = self._losses(batch)
        rows = zip(logits.sigmoid().split([len(one) for one in batch.labels]), batch.labels, batch.prompts, strict=True)
        groups = [(scores[own == n], labels[own == n]) for scores, labels, own in rows for n in own.unique()]
        for threshold in THRESHOLDS if groups else ():
            f1 = [_f1(scores >= threshold, labels > 0.5) for scores, labels in groups]
            out[f"f1@{threshold}"] = torch.stack(f1).mean()
        return out

    # --- state --------------------------------------------------------------------------------------------------

    def learned_state(self) -> dict[str, Tensor]:
        """The language model without frozen parts that have files of their own."""
        parameters = dict(cast(nn.Module, self.lmm).named_parameters(_LMM.removesuffix(".")))
        if self.lmm.has_own_files:
            return {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        elsewhere = {f"{_LMM}{name}" for name in self.lmm.frozen_elsewhere}
        return {name: parameter for name, parameter in parameters.items() if name not in elsewhere}

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load the result of `learned_state`.

        Raises:
            ValueError: when a tensor is missing, unknown or of another shape.
        """
        tensors = fit_adapters(tensors, self.state_dict(), origin, _LMM if self.lmm.has_own_files else None)
        checkpoints.check_fit(self.learned_state(), tensors, str(origin), f"{self.title} as configured")
        self.load_state_dict(tensors, strict=False)

    def _start(self, tensors: dict[str, Tensor], checkpoint: str) -> None:
        if any(name.startswith(_LMM) for name in tensors):
            self.load_learned(tensors, checkpoint)
            return
        self.load_learned(self._language_model_of(tensors, checkpoint), checkpoint)

    def _language_model_of(self, tensors: Mapping[str, Tensor], checkpoint: str) -> dict[str, Tensor]:
        """The language model of another system's checkpoint, without the tokens that it adds to the vocabulary."""
        learned = self.learned_state()
        named = {k.replace(_OTHER, _LMM, 1): v.float() for k, v in tensors.items() if k.startswith(_OTHER)}
        taken = {name: tensor for name, tensor in named.items() if name in learned}
        masks = {k.removeprefix("reader.mask_tokenizer."): v.float() for k, v in tensors.items() if "mask_tok" in k}
        if checkpoints.read_card(checkpoint)["system"] == "ras":
            projector = image_projector(masks, self.lmm.vision_width, checkpoint)
            taken |= {f"{_LMM}model.model.multi_modal_projector.{name}": one for name, one in projector.items()}
        embeddings = f"{_LMM}model.model.language_model.embed_tokens.weight"
        if embeddings in taken:
            taken[embeddings] = taken[embeddings][: len(learned[embeddings])]
        return taken


def _f1(chosen: Tensor, targets: Tensor) -> Tensor:
    """F1 of two sets, (N,) bool each; 1 if both are empty."""
    size = chosen.sum() + targets.sum()
    return torch.where(size > 0, 2 * (chosen & targets).sum() / size.clamp(min=1), 1.0)
