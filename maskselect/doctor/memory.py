"""An estimate of the memory that training takes on one device, from names, shapes and settings.

For parameters of which n are trained, with weights held as they are loaded:

    weights       bytes of each dtype; 2 for each under precision "bf16-true" or "16-true". Mixed precision adds 2 n for
                  half-precision copies of trained weights, which the backward pass needs; with checkpointing only those
                  of one layer
    gradients     4 n
    optimiser     AdamW 8 n; Muon 4 for each number of a matrix or kernel, 8 for all others

For a language model of N layers, width D and hidden width F, the activations that the backward pass needs:

    tokens        S, read in a step, from the task (`step_tokens`)
    a layer       c bytes a token: 40 D + 16 F in single precision, 34 D + 8 F under mixed precision, 24 D + 8 F with
                  weights in half precision; dropout of LoRA adds 4 for each number that its layers read
    all layers    S N c
    checkpointing S (N D + c), where D counts 2 or 4 bytes: the input of every layer, and one whole layer

A test compares the bytes of a layer with those that transformers' Llama keeps. Not in the estimate: attention scores,
which fused kernels do not keep; logits; activations of frozen networks; the CUDA context and fragmentation, a few GiB.

Sharding: FSDP divides gradients, optimiser state, and the weights of the language model and of trained parts by the
number of processes; other frozen parts stay whole, see `training/sharding.py`. It adds two whole layers (the running
one and the next) and, during the whole step, the trained parts beside the layers. DeepSpeed's stage 3 divides all
weights and gathers layers too, stage 2 divides gradients and state, stage 1 the state. Under precision "32-true"
Lightning converts all weights to single precision for DeepSpeed, also frozen ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from maskselect.backends.config_tree import arguments_of, walk
from maskselect.doctor.counts import Part
from maskselect.doctor.devices import precision_name, process_count, strategy_name
from maskselect.lmm.lora import LoraLinear
from maskselect.structures.needs import CountsTokens
from maskselect.structures.protocols import LanguageModel, Learner

_CANDIDATES = 100  # of an image, if neither data nor proposer states a maximum
_STEP_BYTES = {"adamw": (8, 8), "muon": (4, 8)}
"""Bytes of optimiser state for each number of a matrix, and of any other tensor."""


class _Task(CountsTokens, Learner, Protocol):
    """A learner whose memory can be estimated."""

    lmm: LanguageModel


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. activations: None if there is no formula for the task."""

    weights: int
    gradients: int
    optimiser: int
    activations: int | None
    tokens: int = 0

    @property
    def total(self) -> int:
        """The sum of all known terms."""
        return self.weights + self.gradients + self.optimiser + (self.activations or 0)


def estimate(task: nn.Module, parts: Iterable[Part], config: Mapping[str, Any]) -> Memory:
    """Memory of one training process; see the top of the file.

    Args:
        task: the whole task on the meta device.
        parts: its parameters.
        config: the parsed config.
    """
    trainer, parts = config.get("trainer") or {}, list(parts)
    precision = precision_name(trainer)
    over_weights, over_gradients, over_state = _shares(trainer)
    all_weights = "stage_3" in strategy_name(trainer)
    tokens = count_tokens(task, config)
    single = "deepspeed" in strategy_name(trainer) and (trainer.get("precision") or "32-true") == "32-true"
    held = sum(_weights(part, precision, over_weights, all_weights, single) for part in parts)
    return Memory(
        held + _working(task, precision, strategy_name(trainer)),
        4 * sum(part.trained for part in parts) // over_gradients,
        _optimiser(task, config.get("model") or {}) // over_state,
        None if tokens is None else _activations(cast(_Task, task), tokens, precision),
        tokens or 0,
    )


def _weights(part: Part, precision: str, over: int, all_weights: bool, single: bool) -> int:
    """Bytes of one part, divided if it is sharded. single: all weights are converted to single precision."""
    half = precision in ("bf16-true", "16-true")
    size = 4 * part.total if single else 2 * part.total if half else sum(part.held.values())
    return size // over if all_weights or part.trained or part.name == "language model" else size


def _working(task: nn.Module, precision: str, strategy: str) -> int:
    """Bytes of the copies of weights during a step: in half precision, and those that sharding gathers."""
    layers: Sequence[nn.Module] = ()  # with checkpointing one of them is in memory at a time
    if isinstance(task, CountsTokens) and cast(_Task, task).lmm.gradient_checkpointing:
        with suppress(ValueError):  # a task that cannot be sharded
            layers = cast(_Task, task).blocks()
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    beside = sum(p.numel() for p in task.parameters() if p.requires_grad and id(p) not in inside)
    largest = max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=0)
    trained = max((sum(p.numel() for p in layer.parameters() if p.requires_grad) for layer in layers), default=0)
    mixed, half = "mixed" in precision, precision in ("bf16-true", "16-true")
    if "stage_3" in strategy:
        return 2 * (2 if half else 4) * largest + 2 * mixed * trained
    if "fsdp" in strategy or "modelparallel" in strategy:
        return 2 * (2 if half or mixed else 4) * largest + beside * (2 if half else 4 + 2 * mixed)
    return 2 * mixed * (beside + trained)


def _shares(trainer: Mapping[str, Any]) -> tuple[int, int, int]:
    """The divisors of weights, gradients and optimiser state."""
    strategy, (_, world) = strategy_name(trainer), process_count(trainer)
    if "fsdp" in strategy or "modelparallel" in strategy or "stage_3" in strategy:
        return world, world, world
    if "deepspeed" in strategy and "stage_1" not in strategy:  # Lightning's default is stage 2
        return 1, world, world
    return (1, 1, world) if "deepspeed" in strategy else (1, 1, 1)


def _optimiser(task: nn.Module, model: Mapping[str, Any]) -> int:
    matrix, other = _STEP_BYTES.get(str(model.get("optimizer", "adamw")), (8, 8))
    by_adam = tuple(model.get("adam_names") or ())
    size = 0
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            kernel = parameter.ndim > 1 and not any(word in name for word in by_adam)
            size += parameter.numel() * (matrix if kernel else other)
    return size


def count_tokens(task: nn.Module, config: Mapping[str, Any]) -> int | None:
    """Tokens that the language model reads in a step; None if the task does not state them."""
    if not isinstance(task, CountsTokens):
        return None
    data = arguments_of(config.get("data"))
    images = int(data.get("batch_size") or 1)
    prompts = images * int(data.get("prompts_per_image") or 1)
    if data.get("batch_prompts"):
        prompts = min(prompts, int(data["batch_prompts"]))
    return task.step_tokens(images, prompts, _candidates(config, data))


def _candidates(config: Mapping[str, Any], data: Mapping[str, Any]) -> int:
    """Maximum number of candidates of an image: of the data module, or of the outermost proposer that states one."""
    if data.get("max_candidates") is not None:
        return int(data["max_candidates"])
    proposers = (node for node in walk(config.get("model")) if any(key.startswith("proposer") for key in node.keys))
    counts = (node.arguments.get("max_candidates") for node in proposers)
    return next((int(count) for count in counts if count is not None), _CANDIDATES)


def _activations(task: _Task, tokens: int, precision: str) -> int:
    language_model = cast(PreTrainedModel, task.lmm.language_model)
    text: PretrainedConfig = language_model.config
    width, layers = int(text.hidden_size), int(text.num_hidden_layers)
    half = precision in ("bf16-true", "16-true") or next(language_model.parameters()).itemsize == 2
    layer = layer_bytes(width, int(text.intermediate_size), half, "16" in precision)
    adapters = next(iter(language_model.get_submodule("layers").children())).modules()
    dropped = [
        one for one in adapters if isinstance(one, LoraLinear) and cast(nn.Dropout, one.lora_dropout["default"]).p
    ]
    layer += 4 * sum(one.in_features for one in dropped)
    if task.lmm.gradient_checkpointing:
        return tokens * (layers * width * (2 if half else 4) + layer)
    return tokens * layers * layer


def layer_bytes(width: int, hidden: int, half: bool, mixed: bool) -> int:
    """Bytes a token that one layer of a Llama keeps for its backward pass.

    Args:
        width: D.
        hidden: F.
        half: its weights are in half precision.
        mixed: it computes in half precision.
    """
    if half:
        return 24 * width + 8 * hidden
    return 34 * width + 8 * hidden if mixed else 40 * width + 16 * hidden
