"""A resumable checkpoint, of one file or in shards of many processes, into safetensors with a card.

A run writes its weights as safetensors anyway, whenever it writes a checkpoint. Merging is for what is left when that
could not be: a run that was killed between the two, or DeepSpeed's ZeRO-3, where no process holds whole weights.
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
"""Where the module holds what is trained."""


def merge(checkpoint: Path, output: Path | None = None) -> Path:
    """Write what a checkpoint's system learned, as `system.safetensors` beside it or as `output`; gives the path.

    checkpoint: Lightning's file, its folder of shards, or DeepSpeed's folder.
    Raises FileNotFoundError when it is not there, ValueError when it is not one of ours or lacks tensors.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"checkpoint {checkpoint} is not there; expected the last.ckpt of a run")
    rest = _rest(checkpoint)
    card = SaveWeights.card_in(rest.get("callbacks", {}))
    if card is None:
        raise ValueError(f"checkpoint {checkpoint} has no card in it; was it written by this version of maskselect?")
    system: Any = build(card["config"])
    names = [name for name in system.learned_state()]
    tensors = _tensors(checkpoint, rest, names)
    check_fit(system.learned_state(), tensors, str(checkpoint), f"{card['system']} as configured")
    path = output or checkpoint.with_name(f"{card['system']}.safetensors")
    write_checkpoint(path, tensors, card | {"steps": int(rest["global_step"])})
    return path


def _rest(checkpoint: Path) -> dict[str, Any]:
    """All of a checkpoint but, where they are in shards, its tensors."""
    file = checkpoint
    if checkpoint.is_dir():
        found = [checkpoint / "meta.pt", *sorted(checkpoint.glob("checkpoint/*mp_rank_00_model_states.pt"))]
        file = next((one for one in found if one.is_file()), checkpoint)
        if file == checkpoint:
            raise ValueError(
                f"{checkpoint} is a folder without meta.pt, and without DeepSpeed's model states; expected a "
                "checkpoint of Lightning"
            )
    try:
        read: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged archive breaks its reader in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"checkpoint {file} cannot be read: {reason}") from error
    return read


def _tensors(checkpoint: Path, rest: dict[str, Any], names: list[str]) -> dict[str, Tensor]:
    """The tensors of these names, as far as they are there."""
    if checkpoint.is_dir() and not (checkpoint / "meta.pt").is_file():
        deepspeed: Any = require("deepspeed.utils.zero_to_fp32", "deepspeed")
        found = deepspeed.get_fp32_state_dict_from_zero_checkpoint(str(checkpoint))
        return {name: found[_TASK + name] for name in names if _TASK + name in found}
    if checkpoint.is_dir():
        return _from_shards(checkpoint, names)
    return {name: rest["state_dict"][_TASK + name] for name in names if _TASK + name in rest["state_dict"]}


def _from_shards(folder: Path, names: list[str]) -> dict[str, Tensor]:
    """Only what is asked for: optimiser states would take twice the memory again."""
    reader = FileSystemReader(folder)
    stored = reader.read_metadata().state_dict_metadata
    wanted: dict[str, Any] = {}
    for name in names:
        told = stored.get(f"state_dict.{_TASK}{name}")
        if isinstance(told, TensorStorageMetadata):
            wanted[f"state_dict.{_TASK}{name}"] = torch.empty(told.size, dtype=told.properties.dtype)
    load_shards(wanted, storage_reader=reader, no_dist=True)
    return {key.removeprefix(f"state_dict.{_TASK}"): tensor for key, tensor in wanted.items()}
