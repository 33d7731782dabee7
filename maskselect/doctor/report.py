"""What `maskselect doctor` finds about a training config, and its report on the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskselect.backends.terminal import console as terminal
from maskselect.backends.terminal import narrow_table, print_table
from maskselect.doctor.check import missing
from maskselect.doctor.counts import Part, build_skeleton, count, named_parameters, total
from maskselect.doctor.devices import Room, device_room
from maskselect.doctor.listing import listed
from maskselect.doctor.memory import Memory, estimate
from maskselect.structures.needs import Need

GIB = 2**30


@dataclass(frozen=True)
class Findings:
    """Facts about a training config.

    Args:
        parts: parameters of each part.
        not_counted: why the other parts could not be counted.
        memory: of one process; None unless the whole system could be counted.
        room: memory of the device.
        needs: what is missing.
    """

    parts: list[Part]
    not_counted: list[str]
    memory: Memory | None
    room: Room
    needs: list[Need]


def examine(config: Mapping[str, Any]) -> Findings:
    """Examine a config as `lightning fit` parses it, in plain dicts and lists.

    Raises:
        ValueError: a class refuses its arguments.
    """
    needs = missing(config)
    try:
        skeleton = build_skeleton(config["model"]["task"])
    except TypeError as error:
        raise ValueError(f"the config does not fit its classes: {error}") from error
    parts = count(named_parameters(skeleton))
    memory = estimate(skeleton.whole, parts, config) if skeleton.whole is not None else None
    room = device_room(config.get("trainer") or {})
    if memory is not None and room.size is not None and memory.total * room.processes > room.size:
        size = memory.total * room.processes / GIB
        what = f"about {size:.0f} GiB (an estimate); {room.name} has {room.size / GIB:.0f} GiB"
        ways = "a larger device, a smaller batch_size, lora, gradient_checkpointing, or several devices with fsdp"
        needs.append(Need("memory", what, ways))
    return Findings(parts, skeleton.reasons, memory, room, needs)


def print_findings(findings: Findings, title: str) -> None:
    """Print parameters, memory and the list of what is missing."""
    console = terminal()
    if findings.parts:
        table = narrow_table("part", "trained", "frozen", "GiB", "held as")
        for part in findings.parts:
            table.add_row(*_row(part))
        table.add_section()
        table.add_row(*_row(total(findings.parts)))
        print_table(table, f"parameters of {title}")
    for reason in findings.not_counted:
        console.print(f"not counted: {reason}", markup=False, soft_wrap=True)
    console.print(_memory(findings), markup=False, soft_wrap=True)
    if not findings.needs:
        console.print("Nothing is missing.")
        return
    console.print(listed(findings.needs), markup=False, soft_wrap=True)  # commands stay on one line, to be copied
    if any(need.kind == "data" for need in findings.needs):
        console.print("To check a data set that you have: maskselect data check NAME --root DIR", soft_wrap=True)


def _row(part: Part) -> tuple[str, ...]:
    size = part.held.total() / GIB
    return part.name, _amount(part.trained), _amount(part.frozen), f"{size:.2f}", ", ".join(sorted(part.held))


def _amount(count: int) -> str:
    """A number with four digits and its unit; a dash for 0."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.4g} {unit}"
    return str(count or "–")


def _memory(findings: Findings) -> str:
    name, size = findings.room.name, findings.room.size
    room = name if size is None else f"{name}: {size / GIB:.1f} GiB"
    if findings.memory is None:
        return f"memory: not estimated, since not all could be counted; {room}"
    need = findings.memory
    parts = [("weights", need.weights), ("gradients", need.gradients), ("optimiser", need.optimiser)]
    terms = [f"{name} {size / GIB:.1f}" for name, size in parts]
    if need.activations is None:
        terms.append("activations not estimated for this task")
    else:
        terms.append(f"activations {need.activations / GIB:.1f} ({need.tokens:,} tokens a step)")
    times = f", for each of {findings.room.processes} processes" if findings.room.processes > 1 else ""
    return f"memory, an estimate: {need.total / GIB:.1f} GiB{times} ({', '.join(terms)}); {room}"
