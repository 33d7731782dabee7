"""A proposer by name or by config."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from maskselect.backends.building import build, find_class
from maskselect.backends.cache import expanded
from maskselect.backends.checkpoints import find_checkpoint
from maskselect.backends.devices import pick_device
from maskselect.proposers.precomputed import proposer_hash
from maskselect.proposers.sam import SamProposer
from maskselect.structures.protocols import Proposer

_CONFIGS = (".yaml", ".yml", ".json")


def load_proposer(config_or_name: str, device: str) -> tuple[Proposer, str]:
    """The proposer, and the hash that names it in the files it writes.

    config_or_name: a YAML or JSON file with a `class_path`/`init_args` tree, or a SAM checkpoint by name or path.
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
    if not isinstance(config, dict) or "class_path" not in config:
        raise ValueError(f"proposer config {path} has no class_path; expected class_path and init_args")
    made, arguments = find_class(str(config["class_path"])), config.get("init_args", {})
    if not isinstance(arguments, dict):
        raise ValueError(f"init_args of proposer config {path} are {arguments!r}; expected a mapping by name")
    try:
        inspect.signature(made).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"init_args of proposer config {path} do not fit {made.__name__}: {error}") from error
    return config


def _hash_of_sam(checkpoint: Path) -> str:
    return proposer_hash({"class_path": "maskselect.proposers.sam.SamProposer"}, checkpoint)


def _hash_of(config: dict[str, Any]) -> str:
    return proposer_hash(config, config.get("init_args", {}).get("checkpoint"), list(_weights_within(config)))


def _weights_within(config: dict[str, Any]) -> Iterator[str]:
    """Weights that a config names other than by the `checkpoint` of its outermost class: those of inner proposers,
    those that are a class's default, and folders given as `model`. What stays on a hub is known by its name alone.
    """
    arguments = config.get("init_args", {})
    default = inspect.signature(find_class(str(config["class_path"]))).parameters.get("checkpoint")
    if "checkpoint" not in arguments and default is not None and isinstance(default.default, str):
        yield default.default
    if isinstance(arguments.get("model"), str) and expanded(arguments["model"]).exists():
        yield arguments["model"]
    for inner in _configs_in(list(arguments.values())):
        own = inner.get("init_args", {}).get("checkpoint")
        if isinstance(own, str):
            yield own
        yield from _weights_within(inner)


def _configs_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every `class_path`/`init_args` tree in lists and mappings, outermost ones alone."""
    if isinstance(value, dict) and "class_path" in value:
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _configs_in(one)
