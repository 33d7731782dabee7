"""Training groups of clips: a clip with its annotated objects and prompts, and the protocol of their sources."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from maskselect.structures.by_value import ByValue
from maskselect.structures.clip import Clip
from maskselect.structures.groups import Query


class ObjectMasks(Protocol):
    """The masks of all annotated objects, made or read frame by frame."""

    def __len__(self) -> int:
        """Number of frames T."""
        ...

    def __getitem__(self, frame: int) -> Tensor:
        """(M, H, W) bool, all False where an object is not visible. Raises IndexError beyond the last frame."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class AnnotatedClip(ByValue):
    """A clip and its annotated objects. A learner pays only for the frames that it takes.

    Attributes:
        clip: T frames on demand.
        masks: of M objects in the same frames; queries refer to the objects by index.
        extra: tensors that the source needs again in `queries`.
    """

    clip: Clip
    masks: ObjectMasks
    extra: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class ClipGroupSource(Protocol):
    """Clips with prompts."""

    def __len__(self) -> int: ...

    def image_id(self, item: int) -> str:
        """Id of a clip, unique within the source."""
        ...

    def version(self, item: int) -> str:
        """Version of a clip: a string that changes whenever its frames, masks or prompts change."""
        ...

    def prompts_of(self, item: int) -> int:
        """Number of prompts of a clip."""
        ...

    def load_clip(self, item: int) -> AnnotatedClip:
        """Clip and annotated objects."""
        ...

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        """At most `count` prompts. Those with references have `reference_frames`."""
        ...
