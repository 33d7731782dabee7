"""Config trees: `{"class_path": ..., "init_args": {...}}`, as in YAML configs and checkpoint cards.

Only this module reads or writes these two keys. `building.py` builds objects from a tree.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_CLASS, _ARGUMENTS = "class_path", "init_args"

Arguments = Mapping[str, Any]
"""The arguments of a class in a config, by name."""


@dataclass(frozen=True)
class Node:
    """A class in a tree.

    Args:
        path: import path of the class.
        arguments: its arguments.
        keys: its place in the tree, from the top.
    """

    path: str
    arguments: Arguments
    keys: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the class, without its module."""
        return self.path.rpartition(".")[2]

    @classmethod
    def of(cls, config: Any, keys: tuple[str, ...] = ()) -> "Node | None":
        """The class at the top of `config`; None if there is none."""
        if not isinstance(config, Mapping) or _CLASS not in config:
            return None
        return cls(str(config[_CLASS]), config.get(_ARGUMENTS) or {}, keys)


def path_of(cls: type) -> str:
    """The import path of a class."""
    return f"{cls.__module__}.{cls.__name__}"


def tree(cls: type | str, arguments: Arguments | None = None) -> dict[str, Any]:
    """The tree of a class or its import path; without arguments if they are None."""
    path = cls if isinstance(cls, str) else path_of(cls)
    return {_CLASS: path} if arguments is None else {_CLASS: path, _ARGUMENTS: dict(arguments)}


def arguments_of(config: Any) -> dict[str, Any]:
    """The arguments of the class at the top of `config`; empty if there is none."""
    node = Node.of(config)
    return {} if node is None else dict(node.arguments)


def changed(config: Arguments, without: tuple[str, ...] = (), **arguments: Any) -> dict[str, Any]:
    """A tree whose top class has other arguments: `without` are removed, `arguments` are set."""
    kept = {name: value for name, value in arguments_of(config).items() if name not in without}
    return {**config, _ARGUMENTS: kept | arguments}


def walk(config: Any, keys: tuple[str, ...] = ()) -> Iterator[Node]:
    """Yield every class of a tree, outer ones first."""
    node = Node.of(config, keys)
    if node is not None:
        yield node
    for key, value in _entries(node.arguments if node is not None else config):
        yield from walk(value, (*keys, key))


def rebuilt(config: Any, make: Callable[[Node], Any], leaf: Callable[[Any], Any] = lambda value: value) -> Any:
    """Transform a tree from the inside out.

    Args:
        config: a tree, or lists and mappings with trees in them.
        make: called with each class, whose arguments are transformed.
        leaf: called with each other value that is neither a list nor a mapping.
    """

    def transform(value: Any, keys: tuple[str, ...]) -> Any:
        node = Node.of(value, keys)
        if isinstance(value, list):
            return [transform(one, (*keys, key)) for key, one in _entries(value)]
        if not isinstance(value, Mapping):
            return leaf(value)
        inner = {key: transform(one, (*keys, key)) for key, one in (value if node is None else node.arguments).items()}
        return inner if node is None else make(Node(node.path, inner, keys))

    return transform(config, ())


def same_class(base: Any, overlay: Any) -> bool:
    """Whether an overlay names no class, or that of its base."""
    name = overlay.get(_CLASS)
    return name is None or base.get(_CLASS) == name


def _entries(config: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        yield from ((str(key), value) for key, value in config.items())
    elif isinstance(config, list | tuple):
        yield from ((str(number), value) for number, value in enumerate(config))
