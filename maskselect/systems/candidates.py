"""The base of candidate systems, which select masks from the pool of a frozen proposer.

A subclass implements `pool_features`, `read_candidates` and `score_candidates`. The predict path calls `read` and
`answer`, which are here. A clip is answered frame by frame, and the chosen masks are linked to objects
(`systems/linking.py`).

Shape letters: B images, P prompts, N candidates, R references, C pooled channels, T image tokens, V width of the
vision tower.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.backends import checkpoints
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.heads.selection import select
from maskselect.lmm.lora import fit_adapters
from maskselect.proposers.store import StoredProposer
from maskselect.structures.answer import Answer
from maskselect.structures.clip import Clip
from maskselect.structures.features import FeatureMap
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import LanguageModel, Proposer
from maskselect.structures.sample import Prompt
from maskselect.systems.linking import ClipReading, Links, frame_numbers
from maskselect.systems.preparing import CandidatePreparer
from maskselect.systems.proposing import ProposingSystem
from maskselect.systems.reading import Reader


@dataclass(frozen=True)
class PictureReading:
    """The reading of a picture.

    Attributes:
        pool: the proposer's candidates, then the extra ones.
        maps: feature maps of the encoders; empty for an empty pool.
        features: pooled features of the candidates, (N, C).
        candidates: the result of `read_candidates`; None for an empty pool.
    """

    pool: MaskSet
    maps: list[FeatureMap]
    features: Tensor
    candidates: Any


class CandidateSystem(ProposingSystem):
    """A system that selects from the masks of a proposer. Proposer, encoders and vision tower never train.

    Args:
        proposer: proposes the candidates.
        encoders: the frozen ensemble whose feature maps are pooled under masks.
        reader: lays out and embeds the input of the language model, which it holds.

    Attributes:
        title: name of the system in messages.
        channels: C.
        image_tokens: whether the language model sees image tokens.
        duplicates_iou: see `heads.selection.select`.
        captions: whether it trains on captions (stage 1 of RAS) instead of prompts.
    """

    title: str
    channels: int
    image_tokens: bool = True
    duplicates_iou: float | None = None
    captions: bool = False

    def __init__(self, proposer: Proposer, encoders: EncoderEnsemble, reader: Reader) -> None:
        super().__init__(proposer)
        self.encoders = encoders
        self.reader = reader
        self.encoders.requires_grad_(False)

    # --- implemented by subclasses ------------------------------------------------------------------------------

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """Pooled features (N, C) of candidates, or of reference masks (N, H, W) bool; `encode` returned `maps`."""
        raise NotImplementedError

    def read_candidates(self, image: np.ndarray, candidate_features: Tensor) -> Any:
        """Read a picture (H, W, 3) uint8 and its candidates (N, C) once for all prompts."""
        raise NotImplementedError

    def score_candidates(
        self, read: Any, prompts: list[str], references: list[Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Scores (P, N) in [0, 1] and the chosen candidates (P, N) bool, on the CPU.

        Args:
            read: result of `read_candidates`.
            prompts: P texts.
            references: for each prompt the pooled features of its reference masks, (R, C).
            threshold: selection threshold.
        """
        raise NotImplementedError

    # --- the predict path ---------------------------------------------------------------------------------------

    @property
    def answers_prompts(self) -> bool:
        """Whether the system as configured can answer prompts."""
        return not self.captions

    @torch.no_grad()
    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> PictureReading | ClipReading:
        """Propose candidates for a picture, encode and read it; a clip is read in `answer`.

        Args:
            visual: (H, W, 3) uint8, or a clip.
            extra: further candidates of the picture, at any size.

        Raises:
            ValueError: for extra candidates of a clip, and for a stage that cannot answer prompts.
        """
        if not self.answers_prompts:
            refuse_stage_1("this system")
        if not isinstance(visual, np.ndarray):
            if extra is not None:
                raise ValueError("a clip takes no extra candidates; expected them for a picture")
            return ClipReading(visual)
        with self._frozen():
            pool = self.pool_of(visual, extra)
            maps, features = [], torch.zeros(0, self.channels, dtype=torch.float32)
            if len(pool):
                maps = self.encode(visual)
                features = self.pool_features(maps, pool)
        return PictureReading(pool, maps, features, self.read_candidates(visual, features) if len(pool) else None)

    @torch.no_grad()
    def answer(
        self, reading: PictureReading | ClipReading, prompts: list[Prompt], threshold: float | None
    ) -> list[Answer]:
        """One answer per prompt: the chosen candidates without duplicates, by falling score.

        Args:
            reading: result of `read`.
            prompts: their reference masks have the size of the picture, or of the frame in `Prompt.frames`.
            threshold: selection threshold; None is 0.5.

        Raises:
            ValueError: if a prompt does not fit into the language model's context.
        """
        cut = 0.5 if threshold is None else threshold
        if isinstance(reading, PictureReading):
            references = [self._pooled(reading, prompt.references) for prompt in prompts]
            return [
                Answer(reading.pool.masks[group].cpu(), scores[group], reading.pool, scores)
                for scores, group in self._choose(reading, prompts, references, cut)
            ]
        clip = reading.clip
        references = self._references_of(clip, prompts)
        links = [Links(len(clip), clip.size) for _ in prompts]
        for number in frame_numbers(clip):
            frame = self.read(clip[number])
            assert isinstance(frame, PictureReading)
            relative = frame.features - frame.features.mean(0, keepdim=True)
            for link, (scores, group) in zip(links, self._choose(frame, prompts, references, cut), strict=True):
                link.add(number, frame.pool.masks[group].cpu(), scores[group], relative[group].cpu())
        return [link.answer() for link in links]

    def _frozen(self) -> AbstractContextManager[None]:
        """Frozen parts compute without autocast, as in training."""
        return torch.autocast(next(self.reader.parameters()).device.type, enabled=False)

    def _pooled(self, reading: PictureReading, references: Tensor) -> Tensor:
        """Features of reference masks (R, h, w): (R, C)."""
        if not reading.maps:
            return torch.zeros(len(references), self.channels, dtype=torch.float32)
        with self._frozen():
            return self.pool_features(reading.maps, references)

    def _references_of(self, clip: Clip, prompts: list[Prompt]) -> list[Tensor]:
        """For each prompt the features of its reference masks (R, C), each from its own frame."""
        features = [torch.zeros(len(prompt.references), self.channels, dtype=torch.float32) for prompt in prompts]
        for number in sorted({frame for prompt in prompts for frame in prompt.frames}):
            with self._frozen():
                maps = self.encode(clip[number])
                for prompt, rows in zip(prompts, features, strict=True):
                    on_frame = torch.tensor([frame == number for frame in prompt.frames], dtype=torch.bool)
                    if on_frame.any():
                        rows[on_frame] = self.pool_features(maps, prompt.references[on_frame]).to(rows)
        return features

    def _choose(
        self, reading: PictureReading, prompts: list[Prompt], references: list[Tensor], cut: float
    ) -> list[tuple[Tensor, Tensor]]:
        """For each prompt the scores (N,) and the numbers of the chosen candidates (M,), by falling score."""
        pool = reading.pool
        if not len(pool):
            nothing = torch.zeros(0, dtype=torch.float32), torch.zeros(0, dtype=torch.int64)
            return [nothing for _ in prompts]
        texts = [prompt.text for prompt in prompts]
        scores, chosen = self.score_candidates(reading.candidates, texts, references, cut)
        rows = zip(scores, chosen, strict=True)
        return [(row, select(pool.masks, row, picked, self.duplicates_iou)) for row, picked in rows]

    # --- training -----------------------------------------------------------------------------------------------

    def preparer(self, settings: PrepareSettings, training: bool) -> CandidatePreparer:
        """The preparer of batches, see `systems.preparing`; with a store of proposals the proposer reads from it."""
        folder, current = settings.proposals, self.proposer
        stored = isinstance(current, StoredProposer) and current.store.folder == folder
        if folder is not None and not stored:
            self.replace_proposer(StoredProposer(current, folder))
        return CandidatePreparer(self, settings, training)

    @property
    def lmm(self) -> LanguageModel:
        """The language model."""
        return self.reader.lmm

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The frozen networks that decide features."""
        return self.encoders, *self.lmm.visual_parts

    def blocks(self) -> list[nn.Module]:
        """See `Reader.blocks`."""
        return self.reader.blocks()

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of trained parts; frozen parts stay in evaluation mode."""
        super().train(mode)
        self.encoders.eval()
        self.lmm.vision_tower.eval()
        if isinstance(self.proposer, nn.Module):
            self.proposer.eval()
        return self

    def encode(self, image: np.ndarray) -> list[FeatureMap]:
        """Feature maps of an image, (H, W, 3) uint8."""
        return self.encoders.maps(image)

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Features of the vision tower: (B, 3, H, W) float in [0, 1] to (B, T, V)."""
        return self.lmm.vision_features(images)

    def picture_features(self, image: np.ndarray) -> Tensor:
        """Features of the vision tower for one picture: (H, W, 3) uint8 to (1, T, V)."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float().to(next(self.reader.parameters()).device)
        return self.image_features(pixels / 255)

    def image_grid(self, height: int, width: int) -> Tensor | None:
        """Rows and columns, (2,) int64, of the T tokens of an image of this size; None if T is constant."""
        grid = self.lmm.image_grid(height, width)
        return None if grid is None else torch.tensor(grid, dtype=torch.int64)

    def image_grids(self, image: np.ndarray) -> Tensor | None:
        """`image_grid` of (H, W, 3) uint8 as in a `Batch` of one image, (1, 2)."""
        grid = self.image_grid(image.shape[0], image.shape[1])
        return None if grid is None else grid[None]

    # --- state --------------------------------------------------------------------------------------------------

    def learned_state(self) -> dict[str, Tensor]:
        """Every tensor that a checkpoint of this system holds."""
        raise NotImplementedError

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load the tensors of a checkpoint; `fit_adapters` converts between layers with and without LoRA.

        Args:
            tensors: of the file.
            origin: the file, for errors.

        Raises:
            ValueError: if a tensor is missing, unknown or of another shape, or if a frozen one differs from the
                language model's own file. Such a difference would be lost when the system is loaded again.
        """
        learned, state = self.learned_state(), self.state_dict()
        tensors = fit_adapters(tensors, state, origin, "reader.lmm." if self.lmm.has_own_files else None)
        # A file may hold more of the language model than required: all of it, or the LM head for captions.
        learned |= {name: state[name] for name in tensors if name.startswith("reader.lmm.") and name in state}
        tensors = self.completed(tensors, learned)
        checkpoints.check_fit(learned, tensors, str(origin), f"{self.title} as configured")
        for name in sorted({f"reader.lmm.{name}" for name in self.lmm.frozen_elsewhere} & tensors.keys()):
            # Equal up to half precision, in which files are written.
            if not torch.allclose(state[name].float(), tensors.pop(name).float(), rtol=1e-3, atol=1e-6):
                raise ValueError(f"checkpoint {origin} has another {name} than the files of lmm, which stays frozen")
        self.load_state_dict(tensors, strict=False)

    def completed(self, tensors: dict[str, Tensor], learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a file and those of `learned` that the file may omit."""
        return tensors


def refuse_stage_1(what: str) -> NoReturn:
    """Raise ValueError because `what` is of the stage that trains on captions and answers no prompts."""
    raise ValueError(f"{what} is of stage 1, which captions; expected one of stage 2, as ras is")
