"""`Scored`: what an evaluation keeps of one sample, so that it never has to be asked again."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Scored:
    """One answered sample.

    sums: states of `ReferringMetrics` after this sample alone, by name: numbers or lists of numbers.
    iou: of the united answer and the united targets, in [0, 1].
    target_share: share of the image that the targets cover, in [0, 1].
    scores, right: for each candidate its score and whether it matches a target (IoU at least 0.5).
    candidates: how many were scored, None without a pool.  seconds: the answer's part of its image's time.
    failure: why the text could not be decoded.
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

    @property
    def no_target(self) -> bool:
        """Whether nothing in the image answers the prompt."""
        return self.targets == 0

    def as_json(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Scored":
        """What `as_json` gave. Raises ValueError for anything else."""
        try:
            made = cls(**record)
        except TypeError as error:
            raise ValueError(f"not a scored sample: {error}") from error
        object.__setattr__(made, "scores", tuple(made.scores))
        object.__setattr__(made, "right", tuple(made.right))
        return made
