"""Everything that there is to say of a training config before it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskselect.doctor.check import missing
from maskselect.doctor.counts import Part, count, named_parameters
from maskselect.doctor.devices import Room, device_room
from maskselect.doctor.memory import Memory, estimate
from maskselect.doctor.skeleton import build_skeleton
from maskselect.structures.needs import Need

GIB = 2**30


@dataclass(frozen=True)
class Findings:
    """parts: parameters.  not_counted: of what the sizes are not known, and why.

    memory: of one process, None where not all of the system could be counted.  room: what there is of it.
    needs: what is missing.
    """

    parts: list[Part]
    not_counted: list[str]
    memory: Memory | None
    room: Room
    needs: list[Need]


def examine(config: Mapping[str, Any]) -> Findings:
    """What a run of this config has, takes, and lacks.

    config: as `lightning fit` parses it, plain dicts and lists.
    Raises ValueError for a config whose classes refuse their arguments.
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
        needs.append(_too_much(memory.total * room.processes, room.name, room.size))
    return Findings(parts, skeleton.reasons, memory, room, needs)


def _too_much(wanted: int, name: str, size: int) -> Need:
    what = f"about {wanted / GIB:.0f} GiB (an estimate); {name} has {size / GIB:.0f} GiB"
    ways = "a larger device, a smaller batch_size, lora, gradient_checkpointing, or several devices with fsdp"
    return Need("memory", what, ways)
