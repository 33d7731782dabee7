"""Config trees: `{"class_path": ..., "init_args": {...}}`, as YAML configs and checkpoint cards hold them.

This is the only place that reads or writes these two keys. `building.py` makes objects of a tree.
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
        keys: where it stands, from the top.
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
        """The class that stands at the top of `config`; None if it is anything else."""
        if not isinstance(config, Mapping) or _CLASS not in config:
            return None
        return cls(str(config[_CLASS]), config.get(_ARGUMENTS) or {}, keys)


def path_of(made: type) -> str:
    """The import path of a class."""
    return f"{made.__module__}.{made.__name__}"


def tree(made: type | str, arguments: Arguments | None = None) -> dict[str, Any]:
    """The tree of a class, given itself or by its import path; without arguments if they are None."""
    path = made if isinstance(made, str) else path_of(made)
    return {_CLASS: path} if arguments is None else {_CLASS: path, _ARGUMENTS: dict(arguments)}


def arguments_of(config: Any) -> dict[str, Any]:
    """The arguments of the class at the top of `config`; none if it is anything else."""
    node = Node.of(config)
    return {} if node is None else dict(node.arguments)


def changed(config: Arguments, without: tuple[str, ...] = (), **arguments: Any) -> dict[str, Any]:
    """A tree with other arguments at its top: `without` are left out, `arguments` are set."""
    kept = {name: value for name, value in arguments_of(config).items() if name not in without}
    return {**config, _ARGUMENTS: kept | arguments}


def walk(config: Any, keys: tuple[str, ...] = ()) -> Iterator[Node]:
    """Every class of a tree with its place, outer ones first."""
    node = Node.of(config, keys)
    if node is not None:
        yield node
    for key, value in _entries(node.arguments if node is not None else config):
        yield from walk(value, (*keys, key))


def rebuilt(config: Any, make: Callable[[Node], Any], leaf: Callable[[Any], Any] = lambda value: value) -> Any:
    """What becomes of a tree, from the inside out.

    Args:
        config: a tree, or lists and mappings with trees in them.
        make: gets each class, its arguments made already.
        leaf: gets each other value that is neither a list nor a mapping.
    """

    def made(value: Any, keys: tuple[str, ...]) -> Any:
        node = Node.of(value, keys)
        if isinstance(value, list):
            return [made(one, (*keys, key)) for key, one in _entries(value)]
        if not isinstance(value, Mapping):
            return leaf(value)
        inner = {key: made(one, (*keys, key)) for key, one in (value if node is None else node.arguments).items()}
        return inner if node is None else make(Node(node.path, inner, keys))

    return made(config, ())


def same_class(one: Any, other: Any) -> bool:
    """Whether a config may be laid over another: it names no class, or the same one."""
    named = other.get(_CLASS)
    return named is None or one.get(_CLASS) == named


def _entries(config: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        yield from ((str(key), value) for key, value in config.items())
    elif isinstance(config, list | tuple):
        yield from ((str(number), value) for number, value in enumerate(config))
