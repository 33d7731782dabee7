"""The training data that a config or a card names: each source states it itself, by a classmethod `training_data`."""

from typing import Any, Protocol, runtime_checkable

from maskselect.backends.building import find_class
from maskselect.backends.config_tree import Arguments, Node, arguments_of
from maskselect.structures.provenance import TrainingData


@runtime_checkable
class States(Protocol):
    """A source of training images, or a data module, that states what it draws from."""

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """What an object of the class with these arguments trains on; nothing of it is opened or built."""
        ...


def training_data(config: Any) -> list[TrainingData]:
    """What the source at the top of a config tree draws from; nothing if it does not say so."""
    node = Node.of(config)
    if node is None:
        return []
    try:
        made: Any = find_class(node.path)
    except ValueError:  # a class that does not exist any more, or is not ours
        return []
    return made.training_data(node.arguments) if isinstance(made, States) else []


def card_data(card: Arguments) -> list[TrainingData]:
    """What the weights of a card learned from; nothing if it is not known.

    Cards state it under `trained_on`; those written by older versions hold the config of the training source alone.
    """
    if "trained_on" in card:
        return [TrainingData(**one) for one in card["trained_on"]]
    return training_data(arguments_of(card.get("data")).get("train"))
