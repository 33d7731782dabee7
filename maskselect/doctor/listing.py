"""The list of what a run lacks, as text."""

from collections.abc import Sequence
from dataclasses import replace

from maskselect.structures.needs import KINDS, Kind, Need


class MissingError(ValueError):
    """A run lacks something; the message is the whole list, of several lines."""

    def __init__(self, needs: Sequence[Need]) -> None:
        self.needs = tuple(needs)
        super().__init__(listed(needs))


def merged(needs: Sequence[Need]) -> list[Need]:
    """Needs without repetition, sorted by kind. Needs that differ only in their part are joined."""
    parts: dict[Need, dict[str, None]] = {}
    for need in needs:
        parts.setdefault(replace(need, part=""), {})[need.part] = None
    joined = [replace(whole, part=", ".join(filter(None, names))) for whole, names in parts.items()]
    return sorted(joined, key=lambda need: KINDS.index(need.kind))


def listed(needs: Sequence[Need]) -> str:
    """A line for each need. Needs of one kind and with one command share the line of the command."""
    groups: dict[tuple[Kind, str], list[str]] = {}
    for need in merged(needs):
        part, star = f" ({need.part})" if need.part else "", " *" if need.fetched else ""
        groups.setdefault((need.kind, need.help), []).append(need.what + part + star)
    count = sum(map(len, groups.values()))
    lines = [f"{count} {'thing is' if count == 1 else 'things are'} missing:"]
    width = max(map(len, KINDS))
    for (kind, command), names in groups.items():
        lines += [f"  {kind if number == 0 else '':{width}}  {name}" for number, name in enumerate(names)]
        lines += [f"  {'':{width}}    {line}" for line in command.splitlines()]
    if any(need.fetched for need in needs):
        lines.append("  * comes by itself where there is a network")
    return "\n".join(lines)
