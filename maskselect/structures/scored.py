"""`Scored`: the result of one sample that an evaluation stores, so that it can continue later."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Scored:
    """One answered sample.

    Attributes:
        sample_id, image_id, prompt, kind: of the sample.
        references, targets, chosen: numbers of reference masks, targets and selected masks.
        target_share: share of the image in the targets, in [0, 1].
        iou: of the united answer and the united targets, in [0, 1].
        candidates: number of scored candidates; None without a pool.
        seconds: the sample's part of the time of its image.
        sums: state of `ReferringMetrics` after this sample alone, by name: numbers or lists of numbers.
        scores, right: for each candidate its score, and whether it matches a target (IoU at least 0.5).
        failure: why the text could not be decoded.
        repairs: number of places where the decoder repaired the text.
        cut: the text ends at the maximum length of an answer.
    """

    sample_id: str
    image_id: str
    prompt: str
    kind: str
    references: int
    targets: int
    chosen: int
    target_share: float
    iou: float
    candidates: int | None
    seconds: float
    sums: dict[str, Any]
    scores: tuple[float, ...] = ()
    right: tuple[bool, ...] = ()
    failure: str | None = None
    repairs: int = 0
    cut: bool = False

    @property
    def no_target(self) -> bool:
        """Whether the prompt has no target."""
        return self.targets == 0

    def as_json(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Scored":
        """The inverse of `as_json`. Raises ValueError for other records."""
        try:
            scored = cls(**record)
        except TypeError as error:
            raise ValueError(f"not a scored sample: {error}") from error
        object.__setattr__(scored, "scores", tuple(scored.scores))
        object.__setattr__(scored, "right", tuple(scored.right))
        return scored
