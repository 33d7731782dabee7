"""Walking a config, and telling what is missing."""

from maskselect.doctor.needs import MissingError, Need, grouped, listed, merged, walk


def test_every_class_is_found_with_its_place() -> None:
    inner = {"class_path": "b.B", "init_args": {"size": 3}}
    config = {"task": {"class_path": "a.A", "init_args": {"parts": [inner, 5], "text": "class_path"}}, "other": None}
    found = [(node.keys, node.path, dict(node.arguments)) for node in walk(config)]
    assert found[0] == (("task",), "a.A", {"parts": [inner, 5], "text": "class_path"})
    assert found[1:] == [(("task", "parts", "0"), "b.B", {"size": 3})]


def test_a_class_without_arguments_has_none() -> None:
    assert [dict(node.arguments) for node in walk([{"class_path": "a.A", "init_args": None}])] == [{}]


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
    assert grouped(needs) == [("weights", ["a", "b"], "get both"), ("data", ["c (val) *"], "d")]
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
    assert str(MissingError(needs)) == MissingError(needs).listing == listed(needs)
