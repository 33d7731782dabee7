"""Reads the weights of a DeepSpeed checkpoint without running code from it.

`latest` names the folder of the last step. Its `mp_rank_00_model_states.pt` holds all weights of a run without model
parallelism under "module", frozen weights included. The optimiser's shards beside it are not needed.
"""

from pathlib import Path

from torch import Tensor

from maskselect.backends.pickled import read_pickled

STATES = "mp_rank_00_model_states.pt"
_WITHIN = ("", "ckpt_model", "ckpt_models")


def find_states(source: Path) -> Path:
    """The file of model states.

    Args:
        source: the file, the folder of its step, or a folder with `latest`, directly or in its `ckpt_model`.

    Raises:
        FileNotFoundError: if there is none.
    """
    if source.is_file():
        return source
    if not source.exists():
        raise FileNotFoundError(f"DeepSpeed checkpoint {source} does not exist")
    for folder in (source / name for name in _WITHIN):
        if (folder / STATES).is_file():
            return folder / STATES
        if (folder / "latest").is_file():
            states = folder / (folder / "latest").read_text(errors="replace").strip() / STATES
            if not states.is_file():
                raise FileNotFoundError(f"{folder / 'latest'} names a step without weights: {states} is missing")
            return states
    raise FileNotFoundError(
        f"{source} holds no DeepSpeed checkpoint; expected `latest` and global_step*/{STATES}, "
        "there or in its ckpt_model"
    )


def read_states(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of model states by name, mapped from disk. Only plain data is unpickled.

    Raises:
        ValueError: if the file is damaged, would run code, or holds no weights.
    """
    content = read_pickled(path, "DeepSpeed")
    tensors = content.get("module") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"DeepSpeed checkpoint {path} has no weights under 'module'")
    return dict(tensors)
