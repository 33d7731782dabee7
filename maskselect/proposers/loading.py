"""A proposer by config, by name, or by the system that has it."""

import inspect
from pathlib import Path
from typing import Any

import yaml

from maskselect.backends.building import beside, build, find_class, on_device
from maskselect.backends.checkpoints import find_checkpoint, read_card
from maskselect.backends.config_tree import Node, arguments_of
from maskselect.backends.devices import pick_device
from maskselect.proposers.sam import SamProposer
from maskselect.proposers.store import proposer_key
from maskselect.structures.protocols import Proposer

_CONFIGS = (".yaml", ".yml", ".json")


def load_proposer(config_or_name: str, device: str) -> Proposer:
    """A proposer by config, by the system that has it, or SAM by its checkpoint.

    config_or_name: a YAML or JSON file with a config tree, or a checkpoint by name or path: that of a system stands for
        the system's proposer.
    device: auto, cpu or cuda; a config file names its own.
    Raises FileNotFoundError or ValueError when either is not there or not as it should be.
    """
    if Path(config_or_name).suffix in _CONFIGS:
        return _built(_read(Path(config_or_name)))
    checkpoint, place = find_checkpoint(config_or_name), str(pick_device(device))
    own = _proposer_of(checkpoint)
    return SamProposer(checkpoint=checkpoint, device=place) if own is None else _built(on_device(own, place))


def identify_proposer(config_or_name: str) -> str:
    """The `cache_key` of the proposer that `load_proposer` gives, on a machine that need not have its device.

    Raises as `load_proposer` does, and TypeError for a proposer without a `cache_key`.
    """
    if Path(config_or_name).suffix in _CONFIGS:
        return proposer_key(_built(on_device(_read(Path(config_or_name)), "cpu")))
    return proposer_key(load_proposer(config_or_name, "cpu"))


def _built(config: dict[str, Any]) -> Proposer:
    made: Proposer = build(config)
    return made


def _proposer_of(checkpoint: Path) -> dict[str, Any] | None:
    """The config of the proposer of a system, out of its checkpoint's card; None for another kind of checkpoint."""
    card = read_card(checkpoint) if checkpoint.with_suffix(".json").is_file() else {}
    own: dict[str, Any] | None = beside(checkpoint, arguments_of(card.get("config")).get("proposer"))
    return own


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"proposer config {path} does not exist")
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"proposer config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    node = Node.of(config)
    if node is None:
        raise ValueError(f"proposer config {path} has no class_path; expected class_path and init_args")
    made = find_class(node.path)
    if not isinstance(node.arguments, dict):
        raise ValueError(f"init_args of proposer config {path} are {node.arguments!r}; expected a mapping by name")
    try:
        inspect.signature(made).bind(**node.arguments)
    except TypeError as error:
        raise ValueError(f"init_args of proposer config {path} do not fit {made.__name__}: {error}") from error
    return dict(config)
