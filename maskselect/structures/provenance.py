"""What weights learned from, so that a report can say when they have seen the pictures it is about."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from maskselect.structures.protocols import Proposer


@dataclass(frozen=True)
class TrainingData:
    """A split of a data set that weights learned from.

    Args:
        dataset: its name in the catalog; "scenes" for generated scenes.
        split: the name of the split.
        seed, count: of generated scenes.
        root, limit: the folder of the data set, and how many of its first samples were used; None for all.
        share: of the draws of training.
    """

    dataset: str
    split: str = "train"
    seed: int | None = None
    count: int | None = None
    root: str | None = None
    limit: int | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Provenance:
    """The training data of some weights.

    Args:
        weights: what they are, as a sentence names them, for example "Co-DETR's published COCO weights".
        data: what they learned from.
    """

    weights: str
    data: tuple[TrainingData, ...]

    @classmethod
    def of_dataset(cls, weights: str, dataset: str, split: str) -> "Provenance":
        """Of a split of a data set of the catalog. dataset, split: its name and the split's there."""
        return cls(weights, (TrainingData(dataset, split),))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Provenance":
        """Of what `dataclasses.asdict` gave. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(record["weights"], tuple(TrainingData(**one) for one in record["data"]))


@runtime_checkable
class StatesProvenance(Protocol):
    """A proposer that knows what its weights learned from."""

    trained_on: Sequence[Provenance]


def trained_on(proposer: object) -> list[Provenance]:
    """What the weights of a proposer and of all proposers that it holds learned from, each once.

    Inner proposers are found in its attributes, alone or in lists and mappings, at any depth.
    """
    found = list(proposer.trained_on) if isinstance(proposer, StatesProvenance) else []
    for inner in _held(proposer):
        found += (one for one in trained_on(inner) if one not in found)
    return found


def _held(proposer: object) -> Iterator[Proposer]:
    for value in vars(proposer).values():
        members = value.values() if isinstance(value, Mapping) else value
        for one in members if isinstance(value, Mapping | list | tuple) else (value,):
            if isinstance(one, Proposer):
                yield one
