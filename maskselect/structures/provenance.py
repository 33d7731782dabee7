"""What frozen weights learned from, so that a report can say when they have seen the pictures it is about."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maskselect.structures.protocols import Proposer


@dataclass(frozen=True)
class Provenance:
    """The training data of some weights.

    weights: what they are, as a sentence names them, for example "Co-DETR's published COCO weights".
    source: `{class_path, init_args}`, as the cards of checkpoints hold the source that a model was trained on.
    """

    weights: str
    source: Mapping[str, Any]

    @classmethod
    def of_dataset(cls, weights: str, dataset: str, split: str) -> "Provenance":
        """Of a split of a data set of the catalog. dataset, split: its name and the split's there."""
        arguments = {"dataset": dataset, "split": split}
        return cls(weights, {"class_path": "maskselect.data.groups.DatasetGroups", "init_args": arguments})


def trained_on(proposer: object) -> list[Provenance]:
    """What a proposer, and whatever proposers it holds at any depth, say that their weights learned from; each once.

    A proposer says it by an attribute `trained_on`, an iterable of `Provenance`; one without knows nothing of it. Those
    that it holds are found in its attributes, alone or in lists and mappings.
    """
    found = list(getattr(proposer, "trained_on", ()))
    for inner in _held(proposer):
        found += (one for one in trained_on(inner) if one not in found)
    return found


def _held(proposer: object) -> Iterator[Proposer]:
    for value in getattr(proposer, "__dict__", {}).values():
        members = value.values() if isinstance(value, Mapping) else value
        for one in members if isinstance(value, Mapping | list | tuple) else (value,):
            if isinstance(one, Proposer):
                yield one
