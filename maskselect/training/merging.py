"""Converts a resumable checkpoint, of one file or of shards, to safetensors with a card.

A run writes safetensors with every checkpoint, unless it is killed between the two, or runs under DeepSpeed's ZeRO-3,
where no process has whole weights. Merging is for these cases.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_shards

from maskselect.backends.building import build
from maskselect.backends.checkpoints import check_fit, write_checkpoint
from maskselect.backends.optional import require
from maskselect.training.callbacks import SaveWeights

_TASK = "task."
"""Prefix of the learner's tensors in `TrainingModule`."""


def merge(checkpoint: Path, output: Path | None = None) -> Path:
    """Write the learned weights of a checkpoint as safetensors.

    Args:
        checkpoint: Lightning's file, its folder of shards, or DeepSpeed's folder.
        output: the file to write; None writes `SYSTEM.safetensors` beside the checkpoint.

    Returns:
        The path of the written file.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: for a checkpoint without a card, that cannot be read, or that lacks tensors.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"checkpoint {checkpoint} is not there; expected the last.ckpt of a run")
    states = _read(checkpoint)
    card = SaveWeights.card_in(states.get("callbacks", {}))
    if card is None:
        raise ValueError(f"checkpoint {checkpoint} has no card in it; was it written by this version of maskselect?")
    system: Any = build(card["config"])
    expected = system.learned_state()
    tensors = _tensors(checkpoint, states, list(expected))
    check_fit(expected, tensors, str(checkpoint), f"{card['system']} as configured")
    path = output or checkpoint.with_name(f"{card['system']}.safetensors")
    write_checkpoint(path, tensors, card | {"steps": int(states["global_step"])})
    return path


def _read(checkpoint: Path) -> dict[str, Any]:
    """The content of a checkpoint, without tensors if these are in shards."""
    file = checkpoint
    if checkpoint.is_dir():
        files = [checkpoint / "meta.pt", *sorted(checkpoint.glob("checkpoint/*mp_rank_00_model_states.pt"))]
        file = next((one for one in files if one.is_file()), checkpoint)
        if file == checkpoint:
            raise ValueError(
                f"{checkpoint} is a folder without meta.pt, and without DeepSpeed's model states; expected a "
                "checkpoint of Lightning"
            )
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged archive can raise any error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"checkpoint {file} cannot be read: {reason}") from error
    return content


def _tensors(checkpoint: Path, states: dict[str, Any], names: list[str]) -> dict[str, Tensor]:
    """The tensors of these names that the checkpoint has."""
    if not checkpoint.is_dir():
        tensors = states["state_dict"]
    elif (checkpoint / "meta.pt").is_file():
        return _from_shards(checkpoint, names)
    else:
        deepspeed: Any = require("deepspeed.utils.zero_to_fp32", "deepspeed")
        tensors = deepspeed.get_fp32_state_dict_from_zero_checkpoint(str(checkpoint))
    return {name: tensors[_TASK + name] for name in names if _TASK + name in tensors}


def _from_shards(folder: Path, names: list[str]) -> dict[str, Tensor]:
    """Read only these tensors: the optimiser's states would need twice their memory in addition."""
    reader = FileSystemReader(folder)
    stored = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {}
    for name in names:
        described = stored.get(f"state_dict.{_TASK}{name}")
        if isinstance(described, TensorStorageMetadata):
            tensors[f"state_dict.{_TASK}{name}"] = torch.empty(described.size, dtype=described.properties.dtype)
    load_shards(tensors, storage_reader=reader, no_dist=True)
    return {key.removeprefix(f"state_dict.{_TASK}"): tensor for key, tensor in tensors.items()}
