"""Facts about a model that reports state."""

from dataclasses import dataclass
from typing import Any

from maskselect.structures.provenance import Provenance, TrainingData


@dataclass(frozen=True)
class ModelFacts:
    """What a model states about itself.

    Args:
        name: its name in reports.
        fingerprint: digest of its weights and their card, "" if it has no file; results are stored under it.
        training: what its weights learned from; empty if this is not known.
        proposers: what the weights of its proposers learned from; empty if it has no candidates.
        refiner: name of the refiner of its answers; None if it has none.
        threshold: the selection threshold; None if it uses none.
        threshold_data: the data on which the threshold was chosen; empty if it was not chosen, or if this is not known.
        parts: for a named model of public weights its parts, as `hf://org/name@commit`.
        proposer: name of the proposer that replaces its own; None for its own.
    """

    name: str = "model"
    fingerprint: str = ""
    training: tuple[TrainingData, ...] = ()
    proposers: tuple[Provenance, ...] = ()
    refiner: str | None = None
    parts: tuple[str, ...] = ()
    proposer: str | None = None
    threshold: float | None = None
    threshold_data: tuple[TrainingData, ...] = ()

    @property
    def stated_parts(self) -> dict[str, Any]:
        """`parts` and `proposer` as entries of a report, as far as there are any."""
        stated: dict[str, Any] = {"parts": list(self.parts)} if self.parts else {}
        return stated if self.proposer is None else stated | {"proposer": self.proposer}
