"""Training groups: an image with its annotated masks and prompts, and the protocol of their sources."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from maskselect.structures.by_value import ByValue
from maskselect.structures.left_out import one_line
from maskselect.structures.masks import MaskSet

QuestionGroup = Literal["partial", "condition", "all", "reasoning", "text"]
"""`partial`: one expression or some classes. `condition`: all of the listed classes. `all`: classes are not given.
`reasoning`: a question that masks answer. `text`: a question that words answer."""


@dataclass(frozen=True, eq=False, repr=False)
class Annotated(ByValue):
    """An image and its annotated masks.

    Attributes:
        image: (H, W, 3) uint8.
        masks: (M, H, W) bool; queries refer to them by index.
        extra: tensors that the source needs again in `queries`.
        file: the file with exactly this image; None if there is none, as for a crop.
    """

    image: np.ndarray
    masks: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    file: Path | None = None


@dataclass(frozen=True)
class Query:
    """One prompt.

    Attributes:
        text: the prompt; of several classes their names, joined by "|".
        references, targets: indices of annotated masks.
        labels: the label of each target, for a prompt that lists classes (`systems/text_questions.py`); else None.
        answer: the words that answer a prompt in quotation marks, which asks for no mask; else None.
        group: the kind of question, for systems that put the prompt into a sentence; None if its form decides.
        reference_frames: for each reference the frame of the clip on which it is given; empty for a picture.
    """

    text: str
    references: tuple[int, ...]
    targets: tuple[int, ...]
    labels: tuple[str, ...] | None = field(default=None, kw_only=True)
    answer: str | None = field(default=None, kw_only=True)
    group: QuestionGroup | None = field(default=None, kw_only=True)
    reference_frames: tuple[int, ...] = field(default=(), kw_only=True)


class GroupSource(Protocol):
    """Images with prompts."""

    def __len__(self) -> int: ...

    def image_id(self, item: int) -> str:
        """Id of an image, unique within the source; frozen features are cached under it and its version."""
        ...

    def version(self, item: int) -> str:
        """Version of an image: a string that changes whenever its picture, masks or prompts change."""
        ...

    def prompts_of(self, item: int) -> int:
        """Number of prompts of an image."""
        ...

    def load(self, item: int) -> Annotated:
        """Image and annotated masks."""
        ...

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """At most `count` prompts."""
        ...

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        """A caption of the image, for stage 1 of RAS.

        Raises:
            ValueError: when the source has no captions.
        """
        ...


@runtime_checkable
class TextSource(GroupSource, Protocol):
    """Images with captions and dialogues."""

    def texts(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """At most `count` pairs of question and answer; the question of a caption is ""."""
        ...


@runtime_checkable
class GroupMixture(Protocol):
    """Several sources as one."""

    def find(self, item: int) -> tuple[Any, int]:
        """The source of an item, perhaps of clips, and the number of the item in it."""
        ...


class CandidateSource(Protocol):
    """Makes candidates from annotated masks, instead of a proposer."""

    def propose(self, masks: Tensor, rng: np.random.Generator) -> MaskSet:
        """(M, H, W) bool to candidates."""
        ...


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of a config for the preparation of training items; a learner uses those that apply to it.

    Attributes:
        cache_dir: folder of cached frozen features; None caches nothing.
        best_iou, positive_iou: thresholds of positive candidates, see `systems.preparing.LabelRule`.
        max_candidates: upper bound of the candidates of a training image; only those that match no annotated mask are
            dropped. None keeps all.
        synthetic_candidates: makes the candidates of training images from annotated masks; None runs the proposer.
        proposals: folder of stored candidates; None always runs the proposer.
    """

    cache_dir: Path | None = None
    best_iou: float = 0.5
    positive_iou: float = 0.7
    max_candidates: int | None = None
    synthetic_candidates: CandidateSource | None = None
    proposals: Path | None = None


class NamedItems(Protocol):
    """What a source of pictures and a source of clips have in common for messages."""

    def image_id(self, item: int) -> str:
        """Id of an item."""
        ...


class UnusableImageError(ValueError):
    """An image of a source whose file or annotations cannot be read, or that has no candidates.

    Attributes:
        image: its id, or its number when the id cannot be read either.
    """

    def __init__(self, source: NamedItems, item: int, error: BaseException) -> None:
        try:
            self.image = source.image_id(item)
        except (ValueError, OSError):
            self.image = f"number {item}"
        super().__init__(f"image {self.image}: {one_line(error)}")


@contextmanager
def using(source: NamedItems, item: int) -> Iterator[None]:
    """Context that turns a ValueError or OSError into an UnusableImageError that names the image."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UnusableImageError(source, item, error) from error
