"""FSDP2: which parts of a task are sharded among processes, and how shards become whole tensors.

Lightning's `ModelParallelStrategy` starts the processes and their mesh; the module decides what is sharded. Each block
of the language model is one unit, gathered when it runs. All other trainable parameters are one more unit, gathered for
the whole step. Frozen parts outside the blocks (encoders, vision tower, proposer) stay whole in every process, because
they compute features outside of steps.

Under mixed precision, blocks are gathered in half precision. With autocast alone they would be gathered in single
precision, which doubles the traffic, and then be copied. Between blocks, hidden states stay in single precision, as
under autocast.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from maskselect.backends.precision import upcast
from maskselect.structures.protocols import Learner

_TASK_METHODS = ("loss", "validate", "read", "answer")
"""Methods of a task that run its parts; its parameters must be gathered for them."""

_BLOCK_METHODS = ("remember",)
"""The same of a block, besides its forward."""


def shard(task: nn.Module, mesh: Any, block_dtype: torch.dtype | None = None) -> list[str]:
    """Shard a task in place over a one-dimensional mesh of processes; a sharded task is not changed.

    Args:
        task: a `Learner`.
        mesh: the processes.
        block_dtype: dtype of the gathered blocks; None keeps their dtype. Gradients are reduced in float32.

    Returns:
        Names of the trainable parameters outside the blocks. In every process the loss must depend on all of them, see
        `zero_times`.

    Raises:
        ValueError: for a task whose blocks cannot be sharded.
    """
    blocks = cast(Learner, task).blocks()
    in_blocks = {id(parameter) for block in blocks for parameter in block.parameters()}
    outside = {name: p for name, p in task.named_parameters() if id(p) not in in_blocks}
    trainable = [name for name, p in outside.items() if p.requires_grad]
    if isinstance(task, FSDPModule):
        return trainable
    frozen = {p for p in outside.values() if not p.requires_grad}
    policy = MixedPrecisionPolicy(block_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        upcast(block)
        fully_shard(block, mesh=mesh, mp_policy=policy)
        _gather_for(block, _BLOCK_METHODS)
    upcast(task)
    fully_shard(task, mesh=mesh, ignored_params=frozen)
    _gather_for(task, _TASK_METHODS)
    return trainable


def zero_times(task: nn.Module, names: Sequence[str]) -> Tensor | float:
    """0 * the sum of the named parameters. Added to the loss, it gives each of them a gradient in every process.

    Processes reduce gradients together, but a process without references in its batch has gradients for fewer.
    """
    parameters = dict(task.named_parameters())
    return 0 * sum(parameters[name].sum() for name in names)


def _gather_for(module: nn.Module, methods: Sequence[str]) -> None:
    for name in methods:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def whole_tensors(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """The same tensors on the CPU, gathered one by one if they are shards. Every process must call this.

    Args:
        tensors: by name.
        keep: False returns {}, for processes that only take part: each would otherwise hold the whole model.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        detached = tensor.detach()
        whole = detached.full_tensor() if isinstance(detached, DTensor) else detached
        if keep:
            result[name] = whole.cpu()
    return result


def is_deepspeed(strategy: object) -> bool:
    """Whether a strategy of Lightning is DeepSpeed's; does not import DeepSpeed."""
    return any(kind.__name__ == "DeepSpeedStrategy" for kind in type(strategy).__mro__)
