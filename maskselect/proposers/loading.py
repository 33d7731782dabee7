"""A proposer by name or by config."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from maskselect.backends.building import build, find_class
from maskselect.backends.cache import expanded
from maskselect.backends.checkpoints import find_checkpoint
from maskselect.backends.config_tree import Node, arguments_of, tree, walk
from maskselect.backends.devices import pick_device
from maskselect.proposers.precomputed import proposer_hash
from maskselect.proposers.sam import SamProposer
from maskselect.structures.protocols import Proposer

_CONFIGS = (".yaml", ".yml", ".json")
_SAM = tree(SamProposer)


def load_proposer(config_or_name: str, device: str) -> tuple[Proposer, str]:
    """The proposer, and the hash that names it in the files it writes.

    config_or_name: a YAML or JSON file with a config tree, or a SAM checkpoint by name or path.
    device: auto, cpu or cuda; a config names its own.
    Raises FileNotFoundError or ValueError when either is not there or not as it should be.
    """
    if not _is_config(config_or_name):
        checkpoint = find_checkpoint(config_or_name)
        proposer = SamProposer(checkpoint=checkpoint, device=str(pick_device(device)))
        return proposer, _hash_of_sam(checkpoint)
    config = _read(Path(config_or_name))
    return build(config), _hash_of(config)


def identify_proposer(config_or_name: str) -> str:
    """The hash that `load_proposer` gives, without making the proposer: files are read, no weights are kept.

    Raises FileNotFoundError or ValueError when the config, its class or its checkpoint is not there, or when the class
    does not take these arguments.
    """
    if not _is_config(config_or_name):
        return _hash_of_sam(find_checkpoint(config_or_name))
    return _hash_of(_read(Path(config_or_name)))


def _is_config(config_or_name: str) -> bool:
    return Path(config_or_name).suffix in _CONFIGS


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


def _hash_of_sam(checkpoint: Path) -> str:
    return proposer_hash(_SAM, checkpoint)


def _hash_of(config: dict[str, Any]) -> str:
    return proposer_hash(config, arguments_of(config).get("checkpoint"), list(_weights_within(config)))


def _weights_within(config: dict[str, Any]) -> Iterator[str]:
    """Weights that a config names other than by the `checkpoint` of its outermost class: those of inner proposers,
    those that are a class's default, and folders given as `model`. What stays on a hub is known by its name alone.
    """
    for number, node in enumerate(walk(config)):
        if number and isinstance(node.arguments.get("checkpoint"), str):
            yield node.arguments["checkpoint"]
        default = inspect.signature(find_class(node.path)).parameters.get("checkpoint")
        if "checkpoint" not in node.arguments and default is not None and isinstance(default.default, str):
            yield default.default
        if isinstance(node.arguments.get("model"), str) and expanded(node.arguments["model"]).exists():
            yield node.arguments["model"]
