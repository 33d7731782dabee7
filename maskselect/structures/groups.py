"""Training groups: an image with its annotated masks, its prompts, and the protocol of what gives them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from maskselect.structures.by_value import ByValue
from maskselect.structures.left_out import one_line
from maskselect.structures.masks import MaskSet


@dataclass(frozen=True, eq=False, repr=False)
class Annotated(ByValue):
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


@runtime_checkable
class TextSource(GroupSource, Protocol):
    """Images with captions and dialogues."""

    def texts(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """At most `count` pairs of question and answer; the question of a caption is ""."""
        ...


class CandidateSource(Protocol):
    """Makes candidates from annotated masks, in a proposer's place."""

    def propose(self, masks: Tensor, rng: np.random.Generator) -> MaskSet:
        """(M, H, W) bool to candidates."""
        ...


@dataclass(frozen=True)
class PrepareSettings:
    """What a config chooses about the preparation of training items; a learner uses what concerns it.

    cache_dir: where frozen features are kept; None keeps nothing.
    best_iou, positive_iou: which candidates count as a target.
    max_candidates: most candidates of a training image, as far as the others match nothing; None keeps all.
    stand_ins: makes the candidates of training images; None takes the proposer's.
    proposals: folder of stored candidates; None always runs the proposer.
    """

    cache_dir: Path | None = None
    best_iou: float = 0.5
    positive_iou: float = 0.7
    max_candidates: int | None = None
    stand_ins: CandidateSource | None = None
    proposals: Path | None = None


class UnusableImageError(ValueError):
    """An image of a source whose file or annotations cannot be read, or that has no candidates.

    image: its id, or its number where even that cannot be read.
    """

    def __init__(self, source: GroupSource, item: int, error: BaseException) -> None:
        try:
            self.image = source.image_id(item)
        except (ValueError, OSError):
            self.image = f"number {item}"
        super().__init__(f"image {self.image}: {one_line(error)}")


@contextmanager
def using(source: GroupSource, item: int) -> Iterator[None]:
    """A block whose ValueError or OSError is about one image, and becomes an UnusableImageError that names it."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UnusableImageError(source, item, error) from error
