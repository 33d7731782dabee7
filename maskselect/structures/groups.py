"""Training groups: an image with its annotated masks, its prompts, and the protocol of what gives them."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Annotated:
    """An image and its annotated masks.

    image: (H, W, 3) uint8.  masks: (M, H, W) bool; queries speak of them by number.
    extra: tensors that the source wants to find again when it is asked for queries.
    """

    image: np.ndarray
    masks: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """One prompt. references, targets: numbers of annotated masks."""

    text: str
    references: tuple[int, ...]
    targets: tuple[int, ...]


class GroupSource(Protocol):
    """Images with prompts."""

    def __len__(self) -> int: ...

    def image_id(self, item: int) -> str:
        """Identity of an image, unique within the source; frozen features are kept under it and its version."""
        ...

    def version(self, item: int) -> str:
        """What `load` gives beside the identity: another string whenever masks, prompts or picture are others."""
        ...

    def prompts_of(self, item: int) -> int:
        """How many prompts an image has."""
        ...

    def load(self, item: int) -> Annotated:
        """Image and annotated masks."""
        ...

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """At most `count` prompts."""
        ...

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """A caption of the image, for stage 1. Raises ValueError where the source has none."""
        ...
