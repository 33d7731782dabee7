"""How much memory training takes on one device: an estimate, from names, shapes and settings alone.

For parameters that are held as they are loaded, and n of which train:

    weights       bytes of each dtype; 2 for all under precision "bf16-true" or "16-true". Under mixed precision another
                  2 n, the copies in half precision of what trains, which the backward pass needs; of layers that
                  checkpointing runs again those of one at a time
    gradients     4 n
    optimiser     AdamW 8 n; Muon 4 for each number of a matrix or kernel, 8 for all others

For a language model of N layers, width D and hidden width F, the activations that the backward pass needs:

    tokens        S: the task says how many it reads in a step (`step_tokens`)
    a layer       keeps c bytes a token: 40 D + 16 F in single precision, 34 D + 8 F under mixed precision, 24 D + 8 F
                  with weights in half precision; LoRA with dropout another 4 for each number that its layers read
    kept          S N c
    checkpointing S (N D + c), where D counts 2 or 4 bytes: the input of every layer, and one layer as a whole

The bytes of a layer are what transformers' Llama keeps, counted; a test compares them. Not in the estimate: attention
scores, which fused kernels do not keep; logits; frozen networks at work, whose activations go as they come; the CUDA
context and fragmentation, a few GiB together.

Sharded: FSDP divides gradients, optimiser state, and the weights of the language model and of what trains by the number
of processes; frozen parts beside them stay whole, see `training/sharding.py`. On top come two layers whole, the one
that runs and the next, and for the whole of a step what trains beside the layers. DeepSpeed's stage 3 divides all of
it, and gathers layers too, stage 2 divides gradients and state, stage 1 the state. Under precision "32-true" Lightning
brings everything to single precision for DeepSpeed, frozen or not.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import nn

from maskselect.backends.config_tree import arguments_of, walk
from maskselect.doctor.counts import Part
from maskselect.doctor.devices import precision_name, process_count, strategy_name
from maskselect.structures.needs import CountsTokens

_CANDIDATES = 100  # where neither data nor proposer says how many there are at most
_STEP_BYTES = {"adamw": (8, 8), "muon": (4, 8)}
"""Optimiser's bytes for each number of a matrix, and of anything else."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. activations: None where there is no formula for the task."""

    weights: int
    gradients: int
    optimiser: int
    activations: int | None
    tokens: int = 0

    @property
    def total(self) -> int:
        """All that is known."""
        return self.weights + self.gradients + self.optimiser + (self.activations or 0)


def estimate(task: nn.Module, parts: Iterable[Part], config: Mapping[str, Any]) -> Memory:
    """Memory of one training process; see the top of the file.

    task: as sketched, whole.  parts: its parameters.  config: as parsed.
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
        None if tokens is None else _activations(task, tokens, precision),
        tokens or 0,
    )


def _weights(part: Part, precision: str, over: int, all_weights: bool, single: bool) -> int:
    """Bytes of one part, divided where it is sharded. single: all is brought to single precision."""
    half = precision in ("bf16-true", "16-true")
    size = 4 * part.total if single else 2 * part.total if half else sum(part.held.values())
    return size // over if all_weights or part.trained or part.name == "language model" else size


def _working(task: nn.Module, precision: str, strategy: str) -> int:
    """Bytes of what a step makes of weights: copies in half precision, and what FSDP gathers."""
    made: Any = task  # a learner, of whose layers one at a time is run again
    layers: Sequence[nn.Module] = ()
    if isinstance(task, CountsTokens) and made.lmm.gradient_checkpointing:
        with suppress(ValueError):  # a task that cannot be sharded
            layers = made.blocks()
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
    """By how much weights, gradients and optimiser state are divided."""
    strategy, (_, world) = strategy_name(trainer), process_count(trainer)
    if "fsdp" in strategy or "modelparallel" in strategy or "stage_3" in strategy:
        return world, world, world
    if "deepspeed" in strategy and "stage_1" not in strategy:  # Lightning's default is stage 2
        return 1, world, world
    return (1, 1, world) if "deepspeed" in strategy else (1, 1, 1)


def _optimiser(task: nn.Module, model: Mapping[str, Any]) -> int:
    matrix, other = _STEP_BYTES.get(str(model.get("optimizer", "adamw")), (8, 8))
    by_adam = tuple(model.get("adam_names") or ())
    found = 0
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            kernel = parameter.ndim > 1 and not any(word in name for word in by_adam)
            found += parameter.numel() * (matrix if kernel else other)
    return found


def count_tokens(task: nn.Module, config: Mapping[str, Any]) -> int | None:
    """Tokens that the language model reads in a step; None for a task that does not say."""
    if not isinstance(task, CountsTokens):
        return None
    data = arguments_of(config.get("data"))
    images = int(data.get("batch_size") or 1)
    prompts = images * int(data.get("prompts_per_image") or 1)
    if data.get("batch_prompts"):
        prompts = min(prompts, int(data["batch_prompts"]))
    return task.step_tokens(images, prompts, _candidates(config, data))


def _candidates(config: Mapping[str, Any], data: Mapping[str, Any]) -> int:
    """The most that an image has: by the data module, or by the outermost proposer that says so."""
    if data.get("max_candidates") is not None:
        return int(data["max_candidates"])
    inner = (node for node in walk(config.get("model")) if any(key.startswith("proposer") for key in node.keys))
    said = (node.arguments.get("max_candidates") for node in inner)
    return next((int(count) for count in said if count is not None), _CANDIDATES)


def _activations(task: Any, tokens: int, precision: str) -> int:
    text, language_model = task.lmm.model.config.text_config, task.lmm.language_model
    width, layers = int(text.hidden_size), int(text.num_hidden_layers)
    half = precision in ("bf16-true", "16-true") or next(language_model.parameters()).itemsize == 2
    layer = layer_bytes(width, int(text.intermediate_size), half, "16" in precision) + 4 * _dropped(language_model)
    if task.lmm.gradient_checkpointing:
        return tokens * (layers * width * (2 if half else 4) + layer)
    return tokens * layers * layer


def layer_bytes(width: int, hidden: int, half: bool, mixed: bool) -> int:
    """Bytes a token that one layer of a Llama keeps for its backward pass.

    half: its weights are in half precision.  mixed: it runs in half precision, whatever they are.
    """
    if half:
        return 24 * width + 8 * hidden
    return 34 * width + 8 * hidden if mixed else 40 * width + 16 * hidden


def _dropped(language_model: nn.Module) -> int:
    """Numbers a token that LoRA's dropout keeps in one layer, which is as many as the adapted matrices read."""
    first: Any = next(iter(language_model.get_submodule("layers").children()))
    adapted = [module for module in first.modules() if hasattr(module, "lora_dropout")]
    return sum(
        int(module.in_features)
        for module in adapted
        if any(isinstance(one, nn.Dropout) and one.p > 0 for one in module.lora_dropout.values())
    )
