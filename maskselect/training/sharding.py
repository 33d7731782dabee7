"""FSDP2: what of a task is sharded among processes, and whole tensors out of the shards.

Lightning's `ModelParallelStrategy` makes the processes and their mesh; it leaves to us what is sharded. Each block of
the language model is one unit, gathered when it runs. Everything else that trains is one more unit, gathered for the
whole of a step. What is frozen outside of the blocks (encoders, vision tower, proposer) stays whole in every process:
features are computed with it outside of any step.

Under mixed precision blocks are gathered in half precision. Autocast alone would gather them in single precision,
which is twice the traffic, and copy them after that. Between blocks hidden states stay in single precision, as autocast
has them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from maskselect.backends.precision import upcast
from maskselect.structures.protocols import Learner

_CALLED = ("loss", "validate", "read", "answer")
"""Methods of a task that run its parts: the hooks that gather parameters must stand around them."""

_CALLED_OF_BLOCKS = ("remember",)
"""Those of a block, beside its forward."""


def shard(task: nn.Module, mesh: Any, gathered: torch.dtype | None = None) -> list[str]:
    """Shard a task in place over a one-dimensional mesh of processes. A task that is sharded already stays as it is.

    gathered: dtype of blocks while they run; None is that in which they are held. Gradients are reduced in float32.

    Returns:
        Names of the parameters outside the blocks that train; the loss must depend on all of them in every process, see
        `reached`.

    Raises:
        ValueError: for a task whose blocks cannot be sharded.
    """
    blocks = cast(Learner, task).blocks()
    within = {id(parameter) for block in blocks for parameter in block.parameters()}
    own = [name for name, p in task.named_parameters() if p.requires_grad and id(p) not in within]
    if isinstance(task, FSDPModule):
        return own
    whole = {p for p in task.parameters() if not p.requires_grad and id(p) not in within}
    policy = MixedPrecisionPolicy(gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        upcast(block)
        fully_shard(block, mesh=mesh, mp_policy=policy)
        _gather_for(block, _CALLED_OF_BLOCKS)
    upcast(task)
    fully_shard(task, mesh=mesh, ignored_params=whole)
    _gather_for(task, _CALLED)
    return own


def reached(task: nn.Module, names: Sequence[str]) -> Tensor | float:
    """0 * the sum of the named parameters; added to the loss, every process has a gradient for each of them.

    Processes reduce gradients together; without references in its batch, one would have fewer than another.
    """
    held = dict(task.named_parameters())
    return 0 * sum(held[name].sum() for name in names)


def _gather_for(module: nn.Module, methods: Sequence[str]) -> None:
    for name in methods:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def whole_tensors(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """The same tensors on the CPU, gathered one after another where they are shards: every process must call this.

    keep: False gives none, for processes that only take part: of eight on a machine each would hold the whole model.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = _whole(tensor.detach())
        if keep:
            found[name] = whole.cpu()
    return found


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_deepspeed(strategy: object) -> bool:
    """Whether a strategy of Lightning is DeepSpeed's, told without importing it."""
    return any(kind.__name__ == "DeepSpeedStrategy" for kind in type(strategy).__mro__)


def not_sharded(parameters: list[torch.Tensor], what: str, strategy: object = None) -> None:
    """Raises ValueError when one of the parameters is a shard, or will be one, which `what` cannot update."""
    if any(isinstance(parameter, DTensor) for parameter in parameters) or is_deepspeed(strategy):
        raise ValueError(f"{what} needs whole matrices and cannot train what is sharded; use adamw")
