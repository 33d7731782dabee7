"""The protocols through which the parts meet. Constructor types are these, never concrete classes of a sibling room."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from maskselect.structures.features import FeatureInfo, FeatureMap
from maskselect.structures.masks import MaskSet


@runtime_checkable
class Proposer(Protocol):
    """Image to candidate masks."""

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to a `MaskSet` at the image's own size; a set of none when nothing is found."""
        ...


@runtime_checkable
class PromptableProposer(Proposer, Protocol):
    """A proposer that can also turn a box or a point into a mask."""

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask inside a box given in pixels: (H, W) bool."""
        ...

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks inside boxes (K, 4) given in pixels, in their order: K masks, some of which may be empty.

        Scores are the proposer's own estimate of how good each mask is.
        """
        ...

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask under a point given in pixels: (H, W) bool."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Image to feature map. Frozen."""

    info: FeatureInfo

    def encode(self, images: Tensor) -> FeatureMap:
        """(B, 3, H, W) float in [0, 1], already square, any side, to a map on `info.grid`."""
        ...


@runtime_checkable
class Head(Protocol):
    """Hidden state of a candidate to its score."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """(..., D) to logits (...)."""
        ...


@runtime_checkable
class CandidateSystem(Protocol):
    """A system that chooses among proposed candidates: what predictor and trainer need to know of it.

    system: its name in cards.  stage: 1 where it trains by captioning, else 2.
    proposer: where candidates come from.
    duplicates_iou: of two chosen candidates that overlap more only the better one stays; None keeps both.
    A CandidateSystem is a torch.nn.Module as well.
    """

    system: str
    stage: int
    proposer: Proposer
    duplicates_iou: float | None

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """Frozen networks that decide what `pool_features` and `image_features` give."""
        ...

    def image_features(self, images: Tensor) -> Tensor:
        """What the language model sees of images: (B, 3, H, W) float in [0, 1], any shape, to (B, T, E)."""
        ...

    def encode(self, image: np.ndarray) -> list[FeatureMap]:
        """What the encoders see of (H, W, 3) uint8, for any number of masks of it."""
        ...

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """Features of masks of the image that `encode` saw, proposed or given as (N, H, W) bool: (N, C)."""
        ...

    def read(self, image: np.ndarray, candidate_features: Tensor) -> Any:
        """Read an image and its candidates once, for any number of prompts: (H, W, 3) uint8, (N, C)."""
        ...

    def answer(
        self, read: Any, prompts: list[str], references: list[Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Scores (P, N) in [0, 1] and the groups (P, N) bool of prompts on what `read` gave, on the CPU.

        references: for each prompt the pooled features of its reference masks, (R, C).
        """
        ...


@runtime_checkable
class Trainable(Protocol):
    """What the one Lightning module trains: a system, a proposer or an encoder with its objective.

    A Trainable is a torch.nn.Module as well.
    """

    def loss(self, batch: object) -> dict[str, Tensor]:
        """Scalars by name, among them "loss", which is minimised; the others are logged."""
        ...

    def validate(self, batch: object) -> dict[str, Tensor]:
        """Scalars by name for a validation batch, averaged over batches and logged under "val/"."""
        ...
