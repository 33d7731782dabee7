"""The training data of weights, so that a report can warn if they were trained on its images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from maskselect.structures.protocols import Proposer


@dataclass(frozen=True)
class TrainingData:
    """A split of a data set on which weights were trained.

    Attributes:
        dataset: its name in the catalog; "scenes" for generated scenes.
        split: the name of the split.
        seed, count: of generated scenes.
        root, limit: the folder of the data set, and the number of its first samples; None for all.
        share: share of the draws of training.
        part, held_out_share, image_share: of the images, see `data.subsets`.
        without: data sets whose validation and test images are left out.
    """

    dataset: str
    split: str = "train"
    seed: int | None = None
    count: int | None = None
    root: str | None = None
    limit: int | None = None
    share: float = 1.0
    part: Literal["all", "training", "held_out"] = "all"
    held_out_share: float | None = None
    image_share: float = 1.0
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "without", tuple(self.without))  # JSON has lists

    @property
    def described_images(self) -> str:
        """Which of the images, to be appended to the name of the split; "" for all."""
        text = {"all": "", "training": ", without the held-out images", "held_out": ", held-out images"}[self.part]
        text += f", without the evaluation images of {', '.join(self.without)}" if self.without else ""
        return text + (f", {self.image_share:.0%} of the images" if self.image_share < 1 else "")


@dataclass(frozen=True)
class Provenance:
    """The training data of some weights.

    Attributes:
        weights: their name in a sentence, for example "Co-DETR's published COCO weights".
        data: their training data.
    """

    weights: str
    data: tuple[TrainingData, ...]

    @classmethod
    def of_dataset(cls, weights: str, dataset: str, split: str) -> "Provenance":
        """The provenance of weights that were trained on one split of a data set of the catalog."""
        return cls(weights, (TrainingData(dataset, split),))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Provenance":
        """The inverse of `dataclasses.asdict`. Raises KeyError, TypeError or ValueError for other records."""
        return cls(record["weights"], tuple(TrainingData(**data) for data in record["data"]))


@runtime_checkable
class StatesProvenance(Protocol):
    """A proposer that states the training data of its weights."""

    trained_on: Sequence[Provenance]


def trained_on(proposer: object) -> list[Provenance]:
    """The provenance of a proposer and of the proposers in its attributes, at any depth; each once.

    Inner proposers may be attributes, or members of lists and mappings.
    """
    provenances = list(proposer.trained_on) if isinstance(proposer, StatesProvenance) else []
    for inner in _inner_proposers(proposer):
        provenances += (provenance for provenance in trained_on(inner) if provenance not in provenances)
    return provenances


def _inner_proposers(proposer: object) -> Iterator[Proposer]:
    for value in vars(proposer).values():
        members = value.values() if isinstance(value, Mapping) else value
        for member in members if isinstance(value, Mapping | list | tuple) else (value,):
            if isinstance(member, Proposer):
                yield member
