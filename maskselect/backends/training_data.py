"""The training data of a config or a card. Each source declares it by a classmethod `training_data`."""

from typing import Any, Protocol, runtime_checkable

from maskselect.backends.building import find_class
from maskselect.backends.config_tree import Arguments, Node, arguments_of
from maskselect.structures.provenance import TrainingData


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
