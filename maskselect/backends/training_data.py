"""The training data of a config or a card. Each source declares it by a classmethod `training_data`."""

from typing import Any, Protocol, runtime_checkable

from maskselect.backends.building import find_class
from maskselect.backends.config_tree import Arguments, Node, arguments_of
from maskselect.structures.provenance import TrainingData

_CHOSEN_ON = ("dataset", "split", "seed", "root", "limit")
"""Fields of `threshold_from` that describe the data."""


@runtime_checkable
class DeclaresTrainingData(Protocol):
    """A source of training images, or a data module, that declares its data sets."""

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The training data of an object with these arguments, without building it or opening files."""
        ...


def training_data(config: Any) -> list[TrainingData]:
    """The training data of the source at the top of a config tree; empty if it declares none."""
    node = Node.of(config)
    if node is None:
        return []
    try:
        source: Any = find_class(node.path)
    except ValueError:  # a class of an older version, or not ours
        return []
    return source.training_data(node.arguments) if isinstance(source, DeclaresTrainingData) else []


def card_data(card: Arguments) -> list[TrainingData]:
    """The training data of a checkpoint by its card; empty if unknown.

    It is in the field `trained_on`. Cards of older versions have only the config of the training source.
    """
    if "trained_on" in card:
        return [TrainingData(**one) for one in card["trained_on"]]
    return training_data(arguments_of(card.get("data")).get("train"))


def threshold_data(card: Arguments) -> list[TrainingData]:
    """The data on which the threshold of a card was chosen; empty if it was not chosen, or if this is unknown.

    `calibrate` writes the field `threshold_from`. Training chooses the threshold on its validation source.
    """
    if "threshold_from" in card:
        known = {name: card["threshold_from"][name] for name in _CHOSEN_ON if name in card["threshold_from"]}
        return [TrainingData(**known)]
    if not any(name.startswith("val/f1@") for name in card.get("metrics") or {}):
        return []
    return training_data(arguments_of(card.get("data")).get("val"))
