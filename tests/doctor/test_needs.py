"""How a list of what is missing is told."""

from maskselect.doctor.listing import MissingError, listed, merged
from maskselect.structures.needs import Need


def test_parts_of_one_thing_are_one_and_kinds_are_in_order() -> None:
    needs = [
        Need("device", "CUDA", "a machine"),
        Need("data", "set in root", "page", "val"),
        Need("weights", "w", "get w"),
        Need("data", "set in root", "page", "train"),
        Need("weights", "w", "get w"),
    ]
    assert merged(needs) == [
        Need("weights", "w", "get w"),
        Need("data", "set in root", "page", "val, train"),
        Need("device", "CUDA", "a machine"),
    ]


def test_the_list_names_each_command_once() -> None:
    needs = [Need("weights", "a", "get both"), Need("weights", "b", "get both"), Need("data", "c", "d", "val", True)]
    assert listed(needs).splitlines() == [
        "3 things are missing:",
        "  weights  a",
        "           b",
        "             get both",
        "  data     c (val) *",
        "             d",
        "  * comes by itself where there is a network",
    ]
    assert listed(needs[:1]).startswith("1 thing is missing:")
    assert str(MissingError(needs)) == listed(needs)
