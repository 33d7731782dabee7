"""How a list of what is missing is told."""

from collections.abc import Sequence
from dataclasses import replace

from maskselect.structures.needs import KINDS, Kind, Need


class MissingError(ValueError):
    """A run lacks things. `listing` is for the terminal, one or two lines a thing."""

    def __init__(self, needs: Sequence[Need]) -> None:
        self.needs = tuple(needs)
        self.listing = listed(needs)
        super().__init__(self.listing)


def merged(needs: Sequence[Need]) -> list[Need]:
    """Each thing once, kind by kind; parts of one thing are joined."""
    parts: dict[Need, dict[str, None]] = {}
    for need in needs:
        whole = replace(need, part="")
        parts.setdefault(whole, {})[need.part] = None
    joined = [replace(whole, part=", ".join(part for part in own if part)) for whole, own in parts.items()]
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
