"""What the trainer's settings ask of the machine, and how much memory its device has."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from maskselect.backends.config_tree import Node, arguments_of
from maskselect.backends.optional import installing
from maskselect.structures.needs import Need

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_FURTHER = {
    "deepspeed": ("deepspeed", "deepspeed", installing("deepspeed")),
    "transformer-engine": ("transformer_engine", "transformer-engine", "pip install transformer-engine"),
}
"""Part of a trainer's setting: module and package that it takes, and the command that installs it."""


def cuda_count() -> int:
    """CUDA devices here."""
    import torch  # noqa: PLC0415  of no use where no device is asked for

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def strategy_name(trainer: Mapping[str, Any]) -> str:
    """The strategy as text: its short name, or the import path and stage of its class."""
    strategy = trainer.get("strategy") or ""
    if isinstance(strategy, Mapping):
        node = Node.of(strategy) or Node("", {})
        stage = (_deepspeed_config(trainer).get("zero_optimization") or node.arguments).get("stage")
        return f"{node.path}{f' stage_{stage}' if stage is not None else ''}".lower()
    return str(strategy).lower()


def precision_name(trainer: Mapping[str, Any]) -> str:
    """The precision as Lightning names it; that of DeepSpeed's own autocast too."""
    own = _deepspeed_config(trainer).get("torch_autocast") or {}
    if own.get("enabled"):
        return "bf16-mixed" if own.get("dtype") == "bfloat16" else "16-mixed"
    return str(trainer.get("precision") or "32-true")


def _deepspeed_config(trainer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config says to DeepSpeed itself; nothing where that is in a file of its own."""
    config = arguments_of(trainer.get("strategy")).get("config")
    return config if isinstance(config, Mapping) else {}


def trainer_needs(trainer: Mapping[str, Any]) -> list[Need]:
    """A device that is not there, and packages of strategy and precision."""
    accelerator, devices = trainer.get("accelerator"), trainer.get("devices")
    asked = f"{strategy_name(trainer)} {trainer.get('precision') or ''}"
    found = [
        Need("package", f"{package}, for the trainer", command)
        for word, (module, package, command) in _FURTHER.items()
        if word in asked and not find_spec(module)
    ]
    if not _asks_for_cuda(trainer):
        return found
    there, wanted = cuda_count(), devices if isinstance(devices, int) and devices > 0 else 1
    if there >= wanted:
        return found
    many = f"{wanted} CUDA devices" if wanted > 1 else "a CUDA device"
    what = f"{many} for trainer.accelerator {accelerator}; here: {there or 'none'}"
    less = f"--trainer.devices {there}" if there else "--trainer.accelerator cpu"
    return [*found, Need("device", what, f"a machine with {'more' if there else 'one'}, or {less}")]


def part_needs(node: Node) -> list[Need]:
    """A part that is to run on CUDA where there is none."""
    device = str(node.arguments.get("device", ""))
    if not device.startswith("cuda") or cuda_count():
        return []
    return [Need("device", f"CUDA for {'.'.join(node.keys)}", "a machine with one, or `device: cpu` there")]


def _asks_for_cuda(trainer: Mapping[str, Any]) -> bool:
    """Whether by name, or as Lightning's "gpu" where that is not Apple's."""
    accelerator = trainer.get("accelerator")
    if accelerator != "gpu":
        return bool(accelerator == "cuda")
    import torch  # noqa: PLC0415

    return not torch.backends.mps.is_available()


@dataclass(frozen=True)
class Room:
    """Memory of one device. size: bytes, None where it is not here.  processes: how many of the run share it."""

    name: str
    size: int | None
    processes: int = 1


def device_room(trainer: Mapping[str, Any]) -> Room:
    """Of the device that trains: the first CUDA device, or the machine's own memory for a run that asks for no GPU."""
    if trainer.get("accelerator") != "cpu" and cuda_count():
        import torch  # noqa: PLC0415

        told = torch.cuda.get_device_properties(0)
        return Room(str(told.name), int(told.total_memory))
    if _asks_for_cuda(trainer):
        return Room("there is no CUDA device here", None, process_count(trainer)[0])
    return Room("this machine's memory", _memory(), process_count(trainer)[0])


def _memory() -> int:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CGROUP.read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def process_count(trainer: Mapping[str, Any]) -> tuple[int, int]:
    """Processes on this machine, and on all of them."""
    devices = trainer.get("devices")
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    if isinstance(devices, list):
        devices = len(devices)
    if not isinstance(devices, int) or devices < 1:
        devices = max(1, cuda_count()) if trainer.get("accelerator") != "cpu" else 1
    return devices, devices * int(trainer.get("num_nodes") or 1)
