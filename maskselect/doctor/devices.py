"""The devices and packages that a trainer's settings ask for, and the memory of the device."""

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
_PACKAGES = {
    "deepspeed": ("deepspeed", "deepspeed", installing("deepspeed")),
    "transformer-engine": ("transformer_engine", "transformer-engine", "pip install transformer-engine"),
}
"""A word in the strategy or precision, and the module, package and install command that it takes."""


def cuda_count() -> int:
    """Number of CUDA devices of this machine."""
    import torch  # noqa: PLC0415  slow, and not needed without a device

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def strategy_name(trainer: Mapping[str, Any]) -> str:
    """The strategy as lower-case text: its short name, or the import path and stage of its class."""
    strategy = trainer.get("strategy") or ""
    if isinstance(strategy, Mapping):
        node = Node.of(strategy) or Node("", {})
        stage = (_deepspeed_config(trainer).get("zero_optimization") or node.arguments).get("stage")
        return f"{node.path}{f' stage_{stage}' if stage is not None else ''}".lower()
    return str(strategy).lower()


def precision_name(trainer: Mapping[str, Any]) -> str:
    """The precision in Lightning's terms, also of DeepSpeed's own autocast."""
    autocast = _deepspeed_config(trainer).get("torch_autocast") or {}
    if autocast.get("enabled"):
        return "bf16-mixed" if autocast.get("dtype") == "bfloat16" else "16-mixed"
    return str(trainer.get("precision") or "32-true")


def _deepspeed_config(trainer: Mapping[str, Any]) -> Mapping[str, Any]:
    """DeepSpeed's own config; empty if it is in another file."""
    config = arguments_of(trainer.get("strategy")).get("config")
    return config if isinstance(config, Mapping) else {}


def trainer_needs(trainer: Mapping[str, Any]) -> list[Need]:
    """Missing packages of strategy and precision, and missing CUDA devices."""
    accelerator, devices = trainer.get("accelerator"), trainer.get("devices")
    settings = f"{strategy_name(trainer)} {trainer.get('precision') or ''}"
    needs = [
        Need("package", f"{package}, for the trainer", command)
        for word, (module, package, command) in _PACKAGES.items()
        if word in settings and not find_spec(module)
    ]
    required = devices if isinstance(devices, int) and devices > 0 else 1
    present = cuda_count()
    if _uses_cuda(trainer) and present < required:
        many = f"{required} CUDA devices" if required > 1 else "a CUDA device"
        what = f"{many} for trainer.accelerator {accelerator}; here: {present or 'none'}"
        less = f"--trainer.devices {present}" if present else "--trainer.accelerator cpu"
        needs.append(Need("device", what, f"a machine with {'more' if present else 'one'}, or {less}"))
    return needs


def part_needs(node: Node) -> list[Need]:
    """The device of a part that asks for CUDA on a machine without."""
    if not str(node.arguments.get("device", "")).startswith("cuda") or cuda_count():
        return []
    return [Need("device", f"CUDA for {'.'.join(node.keys)}", "a machine with one, or `device: cpu` there")]


def _uses_cuda(trainer: Mapping[str, Any]) -> bool:
    """Whether the trainer asks for CUDA: by name, or as Lightning's "gpu" on a machine without Apple's GPU."""
    accelerator = trainer.get("accelerator")
    if accelerator != "gpu":
        return bool(accelerator == "cuda")
    import torch  # noqa: PLC0415

    return not torch.backends.mps.is_available()


@dataclass(frozen=True)
class Room:
    """Memory of one device. size: bytes, None if it is not in this machine.  processes: how many share it."""

    name: str
    size: int | None
    processes: int = 1


def device_room(trainer: Mapping[str, Any]) -> Room:
    """Memory of the device that trains: the first CUDA device, or the machine itself if the run uses no GPU."""
    if trainer.get("accelerator") != "cpu" and cuda_count():
        import torch  # noqa: PLC0415

        device = torch.cuda.get_device_properties(0)
        return Room(str(device.name), int(device.total_memory))
    if _uses_cuda(trainer):
        return Room("there is no CUDA device here", None, process_count(trainer)[0])
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _CGROUP.is_file() and (limit := _CGROUP.read_text().strip()).isdigit():
        size = min(size, int(limit))
    return Room("this machine's memory", size, process_count(trainer)[0])


def process_count(trainer: Mapping[str, Any]) -> tuple[int, int]:
    """Number of training processes on this machine, and on all machines."""
    devices = trainer.get("devices")
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    if isinstance(devices, list):
        devices = len(devices)
    if not isinstance(devices, int) or devices < 1:
        devices = max(1, cuda_count()) if trainer.get("accelerator") != "cpu" else 1
    return devices, devices * int(trainer.get("num_nodes") or 1)
