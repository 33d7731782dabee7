"""Config trees are walked, changed and rebuilt in one place."""

from typing import Any

from maskselect.backends.config_tree import (
    Node,
    arguments_of,
    changed,
    path_of,
    rebuilt,
    same_class,
    tree,
    walk,
)

INNER = {"class_path": "b.B", "init_args": {"size": 3}}
OUTER = {"class_path": "a.A", "init_args": {"parts": [INNER, 5], "text": "class_path"}}


def test_every_class_is_found_with_its_place() -> None:
    inner = {"class_path": "b.B", "init_args": {"size": 3}}
    config = {"task": {"class_path": "a.A", "init_args": {"parts": [inner, 5], "text": "class_path"}}, "other": None}
    found = [(node.keys, node.path, dict(node.arguments)) for node in walk(config)]
    assert found[0] == (("task",), "a.A", {"parts": [inner, 5], "text": "class_path"})
    assert found[1:] == [(("task", "parts", "0"), "b.B", {"size": 3})]


def test_a_class_without_arguments_has_none() -> None:
    assert [dict(node.arguments) for node in walk([{"class_path": "a.A", "init_args": None}])] == [{}]


def test_a_tree_is_made_and_changed_without_touching_the_old_one() -> None:
    assert tree(Node) == {"class_path": path_of(Node)} and tree("b.B", {"size": 3}) == INNER
    found = changed(OUTER, without=("parts",), text="x")
    assert found == {"class_path": "a.A", "init_args": {"text": "x"}}
    assert arguments_of(OUTER)["text"] == "class_path" and arguments_of("no tree") == arguments_of({"a": 1}) == {}


def test_a_tree_is_rebuilt_from_the_inside_out() -> None:
    def made(node: Node) -> Any:
        return (node.name, node.keys, dict(node.arguments))

    inner = ("B", ("task", "parts", "0"), {"size": 6})
    told = {"task": ("A", ("task",), {"parts": [inner, 10], "text": "class_path"}), "other": None}

    def doubled(value: Any) -> Any:
        return 2 * value if isinstance(value, int) else value

    assert rebuilt({"task": OUTER, "other": None}, made, doubled) == told


def test_an_overlay_of_another_class_begins_anew() -> None:
    assert same_class(OUTER, {"init_args": {}}) and same_class(OUTER, OUTER) and not same_class(OUTER, INNER)
