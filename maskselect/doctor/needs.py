"""What a run needs and does not have: one `Need` each, with the command that helps, and how a list of them is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["weights", "data", "package", "device", "memory"]
KINDS: tuple[Kind, ...] = ("weights", "data", "package", "device", "memory")
"""In the order in which they are told."""

Arguments = Mapping[str, Any]
"""The `init_args` of a class."""


@dataclass(frozen=True)
class Need:
    """Something that is missing.

    what: its name, and what it is for.  help: how to get it, commands where there are some, a line each.
    part: of what, for example the split of a data set; needs that differ in it alone are told as one.
    fetched: it comes by itself while the run is built, if there is a network.
    """

    kind: Kind
    what: str
    help: str
    part: str = ""
    fetched: bool = False


@dataclass(frozen=True)
class Node:
    """A class in a config. keys: where it stands.  path: its import path.  arguments: its `init_args`."""

    keys: tuple[str, ...]
    path: str
    arguments: Arguments


class MissingError(ValueError):
    """A run lacks things. `listing` is for the terminal, one or two lines a thing."""

    def __init__(self, needs: Sequence[Need]) -> None:
        self.needs = tuple(needs)
        self.listing = listed(needs)
        super().__init__(self.listing)


def walk(config: Any, keys: tuple[str, ...] = ()) -> Iterator[Node]:
    """Every class of a tree of `class_path` and `init_args`, outer ones first."""
    if isinstance(config, Mapping):
        if "class_path" in config:
            yield Node(keys, str(config["class_path"]), config.get("init_args") or {})
        for key, value in config.items():
            yield from walk(value, keys if key == "init_args" else (*keys, str(key)))
    elif isinstance(config, Sequence) and not isinstance(config, str | bytes):
        for number, value in enumerate(config):
            yield from walk(value, (*keys, str(number)))


def merged(needs: Sequence[Need]) -> list[Need]:
    """Each thing once, kind by kind; parts of one thing are joined."""
    parts: dict[Need, dict[str, None]] = {}
    for need in needs:
        whole = Need(need.kind, need.what, need.help, "", need.fetched)
        parts.setdefault(whole, {})[need.part] = None
    joined = [
        Need(whole.kind, whole.what, whole.help, ", ".join(part for part in own if part), whole.fetched)
        for whole, own in parts.items()
    ]
    return sorted(joined, key=lambda need: KINDS.index(need.kind))


FETCHED = "* comes by itself where there is a network"


def grouped(needs: Sequence[Need]) -> list[tuple[Kind, list[str], str]]:
    """Kind, names and help: things of one kind that the same command brings stand together.

    Names of what comes by itself end in a star, which `FETCHED` explains.
    """
    found: dict[tuple[Kind, str], list[str]] = {}
    for need in merged(needs):
        part, itself = f" ({need.part})" if need.part else "", " *" if need.fetched else ""
        found.setdefault((need.kind, need.help), []).append(need.what + part + itself)
    return [(kind, names, text) for (kind, text), names in found.items()]


def listed(needs: Sequence[Need]) -> str:
    """A plain list: a line for each thing, and under those that belong together the command that brings them."""
    groups = grouped(needs)
    count = sum(len(names) for _, names, _ in groups)
    lines = [f"{count} {'thing is' if count == 1 else 'things are'} missing:"]
    width = max(map(len, KINDS))
    for kind, names, text in groups:
        lines += [f"  {kind if number == 0 else '':{width}}  {name}" for number, name in enumerate(names)]
        lines += [f"  {'':{width}}    {line}" for line in text.splitlines()]
    if any(need.fetched for need in needs):
        lines.append(f"  {FETCHED}")
    return "\n".join(lines)
