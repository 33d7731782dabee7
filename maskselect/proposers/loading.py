"""A proposer by name or by config."""

from pathlib import Path

import yaml

from maskselect.backends.building import build
from maskselect.backends.checkpoints import find_checkpoint
from maskselect.backends.devices import pick_device
from maskselect.proposers.precomputed import proposer_hash
from maskselect.proposers.sam import SamProposer
from maskselect.structures.protocols import Proposer


def load_proposer(config_or_name: str, device: str) -> tuple[Proposer, str]:
    """The proposer, and the hash that names it in the files it writes.

    config_or_name: a YAML or JSON file with a `class_path`/`init_args` tree, or a SAM checkpoint by name or path.
    device: auto, cpu or cuda; a config names its own.
    Raises FileNotFoundError or ValueError when either is not there or not as it should be.
    """
    path = Path(config_or_name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        checkpoint = find_checkpoint(config_or_name)
        proposer = SamProposer(checkpoint=checkpoint, device=str(pick_device(device)))
        return proposer, proposer_hash({"class_path": "maskselect.proposers.sam.SamProposer"}, checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"proposer config {path} does not exist")
    config = yaml.safe_load(path.read_text())
    if not isinstance(config, dict) or "class_path" not in config:
        raise ValueError(f"proposer config {path} has no class_path; expected class_path and init_args")
    return build(config), proposer_hash(config, config.get("init_args", {}).get("checkpoint"))
