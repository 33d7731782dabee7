"""Loads a proposer by config, by name, or from a system's checkpoint."""

import inspect
from pathlib import Path
from typing import Any

from maskselect.backends.building import beside, build, find_class, on_device
from maskselect.backends.checkpoints import find_checkpoint, read_card
from maskselect.backends.config_tree import Node, arguments_of
from maskselect.backends.configs import read_yaml
from maskselect.backends.devices import pick_device
from maskselect.proposers import points
from maskselect.proposers.mask2former import INSTRUCTSEG, SYSTEM, Mask2FormerProposer
from maskselect.proposers.sam import SamProposer
from maskselect.proposers.store import proposer_key
from maskselect.structures.protocols import Proposer

CONFIGS = (".yaml", ".yml", ".json")
"""Suffixes of files with a config tree."""


def load_proposer(config_or_name: str, device: str) -> Proposer:
    """Load a proposer.

    Args:
        config_or_name: a YAML or JSON file with a config tree; the name or path of a system's checkpoint, for the
            proposer of the system; or that of a checkpoint of SAM, of the compact Mask2Former, of a point mask
            decoder or of InstructSeg, which find objects themselves.
        device: auto, cpu or cuda. A config file sets its own device.

    Raises:
        FileNotFoundError: the config or checkpoint does not exist.
        ValueError: it is invalid.
    """
    if Path(config_or_name).suffix in CONFIGS:
        proposer: Proposer = build(read_config(Path(config_or_name)))
        return proposer
    checkpoint, place = find_checkpoint(config_or_name), str(pick_device(device))
    card = read_card(checkpoint) if checkpoint.with_suffix(".json").is_file() else {}
    if card.get("system") in (SYSTEM, INSTRUCTSEG):
        return Mask2FormerProposer(checkpoint, device=place)
    if card.get("system") == points.SYSTEM:
        return points.PointMaskProposer(checkpoint, device=place)
    config = beside(checkpoint, arguments_of(card.get("config")).get("proposer"))
    return SamProposer(checkpoint=checkpoint, device=place) if config is None else build(on_device(config, place))


def identify_proposer(config_or_name: str) -> str:
    """The `cache_key` of the proposer of `load_proposer`, computed on the CPU.

    Raises as `load_proposer`, and TypeError for a proposer without a `cache_key`.
    """
    if Path(config_or_name).suffix in CONFIGS:
        return proposer_key(build(on_device(read_config(Path(config_or_name)), "cpu")))
    return proposer_key(load_proposer(config_or_name, "cpu"))


def read_config(path: Path, what: str = "proposer") -> dict[str, Any]:
    """Read a config tree, and check that its class exists and takes the arguments.

    Args:
        path: a YAML or JSON file with class_path and init_args.
        what: the part that the config describes, for messages.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is invalid.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{what} config {path} does not exist")
    config = read_yaml(path, f"{what} config")
    node = Node.of(config)
    if node is None:
        raise ValueError(f"{what} config {path} has no class_path; expected class_path and init_args")
    cls = find_class(node.path)
    if not isinstance(node.arguments, dict):
        raise ValueError(f"init_args of {what} config {path} are {node.arguments!r}; expected a mapping by name")
    try:
        inspect.signature(cls).bind(**node.arguments)
    except TypeError as error:
        raise ValueError(f"init_args of {what} config {path} do not fit {cls.__name__}: {error}") from error
    return dict(config)
