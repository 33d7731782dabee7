"""What candidate systems share: a frozen proposer and encoders, a pool of candidates, and the group chosen from it.

A candidate system scores a pool of masks that a frozen proposer finds. It implements `read_candidates` and
`score_candidates`; `read` and `answer`, which the predict path calls, are here. A clip is answered frame by frame, and
the chosen masks are linked to objects (`systems/linking.py`).

Shape letters: B images, P prompts, N candidates, R references, C pooled channels, T image tokens, V width of the
vision tower.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.heads.selection import select
from maskselect.ops.masks import resize_nearest
from maskselect.proposers.store import StoredProposer
from maskselect.structures.answer import Answer
from maskselect.structures.clip import Clip
from maskselect.structures.features import FeatureMap
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import LanguageModel, Prompter, Proposer
from maskselect.structures.sample import Prompt
from maskselect.systems.linking import Links
from maskselect.systems.preparing import CandidatePreparer
from maskselect.systems.reading import Reader


@dataclass(frozen=True)
class PictureReading:
    """A picture, read.

    pool: the proposer's candidates, then the extra ones.
    maps: the encoders' feature maps, and features: (N, C) of the candidates; both empty for an empty pool.
    candidates: what `read_candidates` returned; None for an empty pool.
    """

    pool: MaskSet
    maps: list[FeatureMap]
    features: Tensor
    candidates: Any


@dataclass(frozen=True)
class ClipReading:
    """A clip; its frames are read one after another while it is answered, so that memory is that of one frame."""

    clip: Clip


class CandidateSystem(nn.Module):
    """A system that chooses among the masks of a proposer. Proposer, encoders and vision tower never train.

    Args:
        proposer: where candidates come from.
        encoders: the frozen ensemble under whose maps masks are pooled.
        reader: lays out and embeds what the language model reads; it holds the language model.

    channels: C.
    image_tokens: whether the language model sees the image itself.
    duplicates_iou: see `heads.selection.select`.
    captions: whether it trains on captions (stage 1 of RAS) instead of prompts.
    """

    channels: int
    image_tokens: bool = True
    duplicates_iou: float | None = None
    captions: bool = False

    def __init__(self, proposer: Proposer, encoders: EncoderEnsemble, reader: Reader) -> None:
        super().__init__()
        self.proposer = proposer
        self.encoders = encoders
        self.reader = reader
        self.encoders.requires_grad_(False)
        if isinstance(self.proposer, nn.Module):
            self.proposer.requires_grad_(False)

    def replace_proposer(self, proposer: Proposer) -> None:
        """Take candidates from another proposer, such as one that reads them from a store."""
        self._modules.pop("proposer", None)  # a registered module gives way to nothing else
        self.proposer = proposer

    # --- what a system implements -------------------------------------------------------------------------------

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """Features of masks of the image that `encode` saw, proposed or given as (N, H, W) bool: (N, C)."""
        raise NotImplementedError

    def read_candidates(self, image: np.ndarray, candidate_features: Tensor) -> Any:
        """Read a picture and its candidates once, for any number of prompts: (H, W, 3) uint8, (N, C)."""
        raise NotImplementedError

    def score_candidates(
        self, read: Any, prompts: list[str], references: list[Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Scores (P, N) in [0, 1] and the chosen candidates (P, N) bool, on the CPU.

        Args:
            read: what `read_candidates` returned.
            prompts: P texts.
            references: for each prompt the pooled features of its reference masks, (R, C).
            threshold: score from which a candidate is chosen.
        """
        raise NotImplementedError

    # --- the predict path ---------------------------------------------------------------------------------------

    @property
    def answers_prompts(self) -> bool:
        """Whether it can answer prompts as configured."""
        return not self.captions

    @property
    def prompter(self) -> Prompter | None:
        """The proposer, where it takes boxes and points."""
        return self.proposer if isinstance(self.proposer, Prompter) else None

    @torch.no_grad()
    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> PictureReading | ClipReading:
        """Propose, encode and read a picture; a clip is read while it is answered.

        Args:
            visual: (H, W, 3) uint8, or a clip.
            extra: masks of the picture that join the candidates, at any size.

        Raises:
            ValueError: for extra candidates of a clip, and for a stage that cannot answer prompts.
        """
        if not self.answers_prompts:
            raise ValueError("this system is of stage 1, which captions; expected one of stage 2, as ras is")
        if not isinstance(visual, np.ndarray):
            if extra is not None:
                raise ValueError("a clip takes no extra candidates; expected them for a picture")
            return ClipReading(visual)
        with self._frozen():
            pool = self.proposer.propose(visual)
            if extra is not None and len(extra):
                pool = pool.concat(MaskSet(resize_nearest(extra.masks, pool.image_size), extra.scores, extra.source))
            maps, features = [], torch.zeros(0, self.channels, dtype=torch.float32)
            if len(pool):
                maps = self.encode(visual)
                features = self.pool_features(maps, pool)
        return PictureReading(pool, maps, features, self.read_candidates(visual, features) if len(pool) else None)

    @torch.no_grad()
    def answer(
        self, reading: PictureReading | ClipReading, prompts: list[Prompt], threshold: float | None
    ) -> list[Answer]:
        """One answer a prompt: the chosen candidates without duplicates, by falling score.

        Args:
            reading: what `read` returned.
            prompts: with reference masks of the picture's size, or of the frame's that `Prompt.frames` names.
            threshold: score from which a candidate is in the group; None is 0.5.

        Raises:
            ValueError: for a prompt that does not fit into the language model's context.
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
        for number in range(len(clip)):
            frame = self.read(clip[number])
            assert isinstance(frame, PictureReading)
            distinct = frame.features - frame.features.mean(0, keepdim=True)
            for link, (scores, group) in zip(links, self._choose(frame, prompts, references, cut), strict=True):
                link.add(number, frame.pool.masks[group].cpu(), scores[group], distinct[group].cpu())
        return [link.answer() for link in links]

    def _frozen(self) -> AbstractContextManager[None]:
        """Frozen parts compute without autocast, as they do for training."""
        return torch.autocast(next(self.reader.parameters()).device.type, enabled=False)

    def _pooled(self, reading: PictureReading, references: Tensor) -> Tensor:
        """Features of reference masks (R, h, w): (R, C)."""
        if not reading.maps:
            return torch.zeros(len(references), self.channels, dtype=torch.float32)
        with self._frozen():
            return self.pool_features(reading.maps, references)

    def _references_of(self, clip: Clip, prompts: list[Prompt]) -> list[Tensor]:
        """For each prompt the features of its reference masks, each from the frame on which it was given: (R, C)."""
        features = [torch.zeros(len(prompt.references), self.channels, dtype=torch.float32) for prompt in prompts]
        for number in sorted({frame for prompt in prompts for frame in prompt.frames}):
            with self._frozen():
                maps = self.encode(clip[number])
                for prompt, own in zip(prompts, features, strict=True):
                    there = torch.tensor([frame == number for frame in prompt.frames], dtype=torch.bool)
                    if there.any():
                        own[there] = self.pool_features(maps, prompt.references[there]).to(own)
        return features

    def _choose(
        self, reading: PictureReading, prompts: list[Prompt], references: list[Tensor], cut: float
    ) -> list[tuple[Tensor, Tensor]]:
        """For each prompt scores (N,) and the numbers of the chosen candidates, by falling score (M,)."""
        pool = reading.pool
        if not len(pool):
            nothing = torch.zeros(0, dtype=torch.float32), torch.zeros(0, dtype=torch.int64)
            return [nothing for _ in prompts]
        texts = [prompt.text for prompt in prompts]
        scores, chosen = self.score_candidates(reading.candidates, texts, references, cut)
        rows = zip(scores, chosen, strict=True)
        return [(own, select(pool.masks, own, picked, self.duplicates_iou)) for own, picked in rows]

    # --- training -----------------------------------------------------------------------------------------------

    def preparer(self, settings: PrepareSettings, training: bool) -> CandidatePreparer:
        """Makes batches of frozen features; see `systems.preparing`."""
        if settings.proposals is not None:
            self.replace_proposer(StoredProposer(self.proposer, settings.proposals))
        return CandidatePreparer(self, settings, training)

    @property
    def lmm(self) -> LanguageModel:
        """The language model."""
        return self.reader.lmm

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The frozen networks."""
        return self.encoders, *self.lmm.visual_parts

    def blocks(self) -> list[nn.Module]:
        """Layers of the language model, which may be sharded one by one.

        Raises ValueError without gradient checkpointing: the prefix is then a pass of its own, whose keys and values
        carry gradients past the outputs on which sharding waits for them.
        """
        if not self.lmm.gradient_checkpointing:
            raise ValueError("lmm.gradient_checkpointing must be true where the language model is sharded")
        layers: Any = self.lmm.language_model.layers
        return list(layers)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what trains; the frozen parts always stay in evaluation mode."""
        super().train(mode)
        self.encoders.eval()
        self.lmm.vision_tower.eval()
        if isinstance(self.proposer, nn.Module):
            self.proposer.eval()
        return self

    def encode(self, image: np.ndarray) -> list[FeatureMap]:
        """What the encoders see of (H, W, 3) uint8, for any number of masks of it."""
        return self.encoders.maps(image)

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """What the language model sees of images: (B, 3, H, W) float in [0, 1] to (B, T, V)."""
        return self.lmm.vision_features(images)

    def without_frozen(self, tensors: Mapping[str, Tensor], origin: str | Path) -> dict[str, Tensor]:
        """Tensors of a checkpoint without those that are frozen here and come from files of their own.

        Raises ValueError when one of these is another in the checkpoint: it would be so only until it is loaded again.
        """
        left, held = dict(tensors), self.state_dict()
        for name in sorted({f"reader.lmm.{name}" for name in self.lmm.frozen_elsewhere} & left.keys()):
            # As far as half precision tells them apart, in which files are written.
            if not torch.allclose(held[name].float(), left.pop(name).float(), rtol=1e-3, atol=1e-6):
                raise ValueError(f"checkpoint {origin} has another {name} than the files of lmm, which stays frozen")
        return left

    def image_grid(self, height: int, width: int) -> Tensor | None:
        """Rows and columns, (2,) int64, of the T tokens of an image of that many pixels; None where T is always the
        same."""
        grid = self.lmm.image_grid(height, width)
        return None if grid is None else torch.tensor(grid, dtype=torch.int64)

    def image_grids(self, image: np.ndarray) -> Tensor | None:
        """The same of (H, W, 3) uint8 as a `Batch` of one image has it, (1, 2)."""
        grid = self.image_grid(image.shape[0], image.shape[1])
        return None if grid is None else grid[None]
