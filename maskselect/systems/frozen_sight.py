"""What systems that read candidates share: a frozen view of the image, and a reader with the language model.

Shape letters: B images, T image tokens, V width of the vision tower.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.structures.features import FeatureMap
from maskselect.structures.protocols import LanguageModel, Proposer
from maskselect.systems.reading import Reader


class FrozenSight(nn.Module):
    """A system whose proposer, encoders and vision tower never train.

    Args:
        proposer: where candidates come from.
        encoders: the frozen ensemble under whose maps masks are pooled.
        reader: lays out and embeds what the language model reads; it holds the language model.
    """

    def __init__(self, proposer: Proposer, encoders: EncoderEnsemble, reader: Reader) -> None:
        super().__init__()
        self.proposer = proposer
        self.encoders = encoders
        self.reader = reader
        self.encoders.requires_grad_(False)
        if isinstance(self.proposer, nn.Module):
            self.proposer.requires_grad_(False)

    @property
    def lmm(self) -> LanguageModel:
        """The language model."""
        return self.reader.lmm

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The frozen networks."""
        return self.encoders, *self.lmm.visual_parts

    @property
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
