"""Findings as tables for the terminal."""

from rich.table import Table

from maskselect.backends.terminal import console as terminal
from maskselect.backends.terminal import narrow_table, print_table
from maskselect.doctor.counts import Part, total
from maskselect.doctor.examine import GIB, Findings
from maskselect.doctor.listing import FETCHED, grouped


def print_findings(found: Findings, title: str) -> None:
    """Parameters, memory, and at the end what is missing."""
    console = terminal()
    if found.parts:
        print_table(_parameters(found.parts), f"parameters of {title}")
    for reason in found.not_counted:
        console.print(f"not counted: {reason}", markup=False, soft_wrap=True)
    console.print(_memory(found), markup=False, soft_wrap=True)
    if not found.needs:
        console.print("Nothing is missing.")
        return
    console.print("missing:")
    for kind, names, text in grouped(found.needs):
        told = f"{kind:7} {', '.join(names)}\n        {text}"
        console.print(told, markup=False, soft_wrap=True)  # commands stay whole, to be copied
    if any(need.fetched for need in found.needs):
        console.print(FETCHED)
    if any(need.kind == "data" for need in found.needs):
        console.print(
            "A data set that you have got is checked by: maskselect data check NAME --root DIR", soft_wrap=True
        )


def _parameters(parts: list[Part]) -> Table:
    table = narrow_table("part", "trained", "frozen", "GiB", "held as")
    for part in parts:
        table.add_row(*_row(part))
    table.add_section()
    table.add_row(*_row(total(parts)))
    return table


def _row(part: Part) -> tuple[str, ...]:
    size = sum(part.held.values()) / GIB
    return part.name, _amount(part.trained), _amount(part.frozen), f"{size:.2f}", ", ".join(sorted(part.held))


def _amount(count: int) -> str:
    """To four figures."""
    if not count:
        return "–"
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.4g} {letter}"
    return str(count)


def _memory(found: Findings) -> str:
    name, size = found.room.name, found.room.size
    room = name if size is None else f"{name}: {size / GIB:.1f} GiB"
    if found.memory is None:
        return f"memory: not estimated, since not all could be counted; {room}"
    need = found.memory
    parts = [("weights", need.weights), ("gradients", need.gradients), ("optimiser", need.optimiser)]
    told = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
    last = "activations not estimated for this task"
    if need.activations is not None:
        last = f"activations {need.activations / GIB:.1f} ({need.tokens:,} tokens a step)"
    times = f", for each of {found.room.processes} processes" if found.room.processes > 1 else ""
    return f"memory, an estimate: {need.total / GIB:.1f} GiB{times} ({told}, {last}); {room}"
