"""`Answer`: the answer of a system to one prompt, at the working size.

Shape letters: M masks of the group, N candidates, T frames, h w working pixels.
"""

from dataclasses import dataclass

from torch import Tensor

from maskselect.structures.by_value import ByValue
from maskselect.structures.clip import ClipMasks
from maskselect.structures.masks import MaskSet


@dataclass(frozen=True, eq=False, repr=False)
class Answer(ByValue):
    """The masks of one prompt by falling score, with the pool or the text from which they come.

    Attributes:
        masks: (M, h, w) bool of a picture, or `ClipMasks` of a clip; M = 0 for a no-target prompt.
        scores: (M,) float32 in [0, 1].
        pool: the scored candidates, (N, h, w); None if the system has none, and for clips.
        pool_scores: (N,) float32, the score of every candidate; None without a pool.
        text: the text of the language model; None if it writes none.
        failure: why `text` could not be decoded to masks, as one sentence; None if it could, or there is none.
        repairs: number of places where the decoder repaired `text`.
        cut: `text` ends at the maximum length of an answer.
        labels: the class of each mask, for a prompt that lists classes; else None.
        coverage: beside the masks, the system's own estimate of the share of each cell of a grid over the picture that
            the targets cover, (h, w) float32 in [0, 1]; None if it makes none. A refiner may use it.
    """

    masks: Tensor | ClipMasks
    scores: Tensor
    pool: MaskSet | None = None
    pool_scores: Tensor | None = None
    text: str | None = None
    failure: str | None = None
    repairs: int = 0
    cut: bool = False
    labels: tuple[str, ...] | None = None
    coverage: Tensor | None = None
