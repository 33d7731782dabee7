"""The estimate of memory is the formula that `maskselect/doctor/memory.py` states."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModel, LlamaConfig

from maskselect.doctor import devices
from maskselect.doctor.counts import Part, build_skeleton, count, total
from maskselect.doctor.devices import Room, device_room, precision_name, process_count, strategy_name
from maskselect.doctor.memory import Memory, count_tokens, estimate, layer_bytes
from maskselect.doctor.report import examine
from maskselect.lmm.lora import LoraSettings, add_lora
from maskselect.lmm.wrapped import recompute_activations
from tests.doctor.machines import config_of
from tests.systems.tiny import SIZES

TINY = {"lmm": {"init_args": {"sizes": vars(SIZES)}}}
N, D, F, T = SIZES.layers, SIZES.width, SIZES.ffn, 4
DEEPSPEED = "lightning.pytorch.strategies.DeepSpeedStrategy"
LAYER = 4 * D * D + 3 * D * F + 2 * D
"""Parameters of a layer of the language model, all of which train."""


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_count", lambda: 0)


def tiny(**changes: Any) -> dict[str, Any]:
    config = deepcopy(config_of("ras.yaml"))
    arguments = config["model"]["task"]["init_args"]
    arguments["lmm"]["init_args"] = {"sizes": vars(SIZES)} | changes.pop("lmm", {})
    arguments |= changes.pop("task", {})
    config["data"]["init_args"] |= {"batch_size": 2, "prompts_per_image": 3, "max_candidates": 5}
    config["trainer"] |= {"precision": "32-true"} | changes.pop("trainer", {})
    config["model"] |= changes
    return config


def estimated(config: dict[str, Any]) -> tuple[Memory, Part, dict[str, Part]]:
    made = build_skeleton(config["model"]["task"]).whole
    assert made is not None
    parts = count(dict(made.named_parameters()))
    return estimate(made, parts, config), total(parts), {part.name: part for part in parts}


def test_all_in_single_precision() -> None:
    found, whole, _ = estimated(tiny(optimizer="adamw"))
    assert (found.weights, found.gradients, found.optimiser) == (4 * whole.total, 4 * whole.trained, 8 * whole.trained)
    tokens = 2 * (40 + T + 2 * 5) + 2 * 3 * (32 + 5)
    assert found.tokens == tokens and found.activations == tokens * N * (40 * D + 16 * F)
    assert found.total == found.weights + found.gradients + found.optimiser + found.activations


def test_checkpointing_keeps_inputs_and_one_layer() -> None:
    found, _, _ = estimated(tiny(lmm={"gradient_checkpointing": True}, trainer={"precision": "bf16-mixed"}))
    assert found.activations == found.tokens * (4 * N * D + 34 * D + 8 * F)
    dropped = {"gradient_checkpointing": True, "lora": {"r": 2, "dropout": 0.1, "targets": ["q_proj", "down_proj"]}}
    found, _, _ = estimated(tiny(lmm=dropped, trainer={"precision": "bf16-true"}))
    assert found.activations == found.tokens * (2 * N * D + 24 * D + 8 * F + 4 * (D + F))
    found, _, _ = estimated(tiny(lmm=dropped | {"lora": {"r": 2, "dropout": 0.0}}, trainer={"precision": "bf16-true"}))
    assert found.activations == found.tokens * (2 * N * D + 24 * D + 8 * F)


@pytest.mark.parametrize(
    ("stored", "mixed", "dropout"),
    [
        (torch.float32, False, None),
        (torch.float32, True, None),
        (torch.bfloat16, True, None),
        (torch.bfloat16, True, 0.1),
    ],
    ids=["single", "mixed", "half", "lora"],
)
def test_a_layer_keeps_what_is_stated(stored: torch.dtype, mixed: bool, dropout: float | None) -> None:
    width, hidden, tokens = 64, 160, 1024
    one, two = (_kept(layers, width, hidden, tokens, stored, mixed, dropout) for layers in (1, 2))
    stated = layer_bytes(width, hidden, stored == torch.bfloat16, mixed)
    stated += 4 * (6 * width + hidden) if dropout else 0
    assert (two - one) / tokens == pytest.approx(stated, rel=0.1 if dropout else 0.03)


def _kept(
    layers: int, width: int, hidden: int, tokens: int, stored: torch.dtype, mixed: bool, dropout: float | None
) -> int:
    """Bytes that a Llama keeps for its backward pass, its weights and their copies in half precision apart."""
    sizes = {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4}
    model = AutoModel.from_config(LlamaConfig(vocab_size=8, **sizes), attn_implementation="sdpa").to(stored).train()
    if dropout is not None:
        add_lora(model, LoraSettings(r=1, alpha=1, dropout=dropout))
    shapes = {shape for p in model.parameters() for shape in (tuple(p.shape), tuple(reversed(p.shape)))}
    found: dict[int, Tensor] = {}  # the tensors are held, so that no address is taken twice

    def keep(tensor: Tensor) -> Tensor:
        if tuple(tensor.shape) not in shapes:
            found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    embeddings = torch.randn(1, tokens, width).to(stored).requires_grad_()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
        sdpa_kernel(SDPBackend.FLASH_ATTENTION),
    ):
        model(inputs_embeds=embeddings, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def test_precision_decides_what_weights_take() -> None:
    mixed, whole, _ = estimated(tiny(trainer={"precision": "bf16-mixed"}))
    assert mixed.weights == 4 * whole.total + 2 * whole.trained
    half, _, _ = estimated(tiny(trainer={"precision": "bf16-true"}))
    assert half.weights == 2 * whole.total
    again, _, _ = estimated(tiny(lmm={"gradient_checkpointing": True}, trainer={"precision": "bf16-mixed"}))
    assert again.weights == mixed.weights - 2 * (N - 1) * LAYER


@pytest.mark.parametrize("overlay", ["zero2", "zero3"])
def test_deepspeeds_own_autocast_is_mixed_precision(overlay: str) -> None:
    trainer = config_of("paper/ras_7b.yaml", f"paper/overlays/{overlay}.yaml")["trainer"]
    assert trainer["precision"] == "32-true" and precision_name(trainer) == "bf16-mixed"
    assert strategy_name(trainer).endswith(f"stage_{overlay[-1]}")
    assert precision_name({}) == "32-true" and precision_name({"precision": "bf16-true"}) == "bf16-true"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_copies_in_half_precision_that_the_backward_pass_needs(checkpointing: bool) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = AutoModel.from_config(LlamaConfig(vocab_size=8, **sizes), attn_implementation="sdpa").train()
    if checkpointing:
        recompute_activations(model)
    shapes = {tuple(p.shape) for p in model.layers.parameters() if p.ndim == 2}
    copies: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bfloat16 and (tuple(tensor.shape) in shapes or tuple(tensor.mT.shape) in shapes):
            copies.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, cache_enabled=False),  # as Lightning makes it
    ):
        model(inputs_embeds=torch.randn(1, 5, 32).requires_grad_(), use_cache=False)
    matrices = sum(p.numel() for p in model.layers.parameters() if p.ndim == 2)
    assert sum(copy.numel() for copy in copies.values()) == (0 if checkpointing else matrices)


def test_muon_keeps_one_number_of_a_matrix() -> None:
    found, whole, _ = estimated(tiny(optimizer="muon", adam_names=["embed", "head"]))
    assert 4 * whole.trained < found.optimiser < 8 * whole.trained
    by_adam, _, _ = estimated(tiny(optimizer="muon", adam_names=[""]))
    assert by_adam.optimiser == 8 * whole.trained


@pytest.mark.parametrize(
    ("strategy", "shares"),
    [
        ("ddp", (1, 1, 1)),
        ("deepspeed_stage_1", (1, 1, 4)),
        ("deepspeed_stage_2", (1, 4, 4)),
        ("deepspeed_stage_3", (4, 4, 4)),
        ({"class_path": DEEPSPEED, "init_args": {"stage": 3}}, (4, 4, 4)),
        ({"class_path": DEEPSPEED, "init_args": {"config": {"zero_optimization": {"stage": 3}}}}, (4, 4, 4)),
        ({"class_path": DEEPSPEED, "init_args": {"config": {"zero_optimization": {"stage": 2}}}}, (1, 4, 4)),
    ],
    ids=str,
)
def test_what_is_sharded_is_divided(strategy: Any, shares: tuple[int, int, int]) -> None:
    alone, _, _ = estimated(tiny())
    found, _, _ = estimated(tiny(trainer={"strategy": strategy, "devices": 2, "num_nodes": 2, "accelerator": "cpu"}))
    whole = (alone.weights, alone.gradients, alone.optimiser)
    divided = [size / share for size, share in zip(whole, shares, strict=True)]
    assert [found.weights, found.gradients, found.optimiser] == pytest.approx(divided, rel=1e-3)
    assert found.activations == alone.activations


def test_fsdp_leaves_frozen_parts_whole() -> None:
    alone, whole, parts = estimated(tiny())
    strategy = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}
    found, _, _ = estimated(tiny(trainer={"strategy": strategy, "devices": 4, "accelerator": "cpu"}))
    stays = sum(part.total for part in parts.values() if not part.trained)
    beside = whole.trained
    assert found.weights == pytest.approx(4 * (stays + (whole.total - stays) / 4) + 4 * beside, abs=99)
    assert found.optimiser == alone.optimiser // 4
    again = {"gradient_checkpointing": True}
    for precision, held, gathered in (("32-true", 4, 4), ("bf16-mixed", 2, 6)):
        settings = {"strategy": strategy, "devices": 4, "accelerator": "cpu", "precision": precision}
        found, _, _ = estimated(tiny(lmm=again, trainer=settings))
        working = 2 * held * LAYER + gathered * (beside - N * LAYER)
        assert found.weights == pytest.approx(4 * (stays + (whole.total - stays) / 4) + working, abs=99)


def test_tokens_of_other_tasks() -> None:
    def tokens(config: dict[str, Any]) -> int | None:
        return count_tokens(build_skeleton(config["model"]["task"]).whole, config)

    assert tokens(tiny(task={"stage": 1})) == 2 * (40 + 2 * 5 + 64)
    assert tokens(tiny(task={"image_tokens": False, "pre_tokens": "none"})) == 2 * (40 + 5) + 6 * (32 + 5)
    few = tiny()
    few["data"]["init_args"]["batch_prompts"] = 4
    assert tokens(few) == 2 * (40 + T + 2 * 5) + 4 * (32 + 5)
    llmseg = config_of("llmseg.yaml")
    images, prompts = (llmseg["data"]["init_args"][name] for name in ("batch_size", "prompts_per_image"))
    assert tokens(llmseg) == images * (40 + 64 + prompts * (32 + 16))
    llava = config_of("llava.yaml")
    assert tokens(llava) == llava["data"]["init_args"]["batch_size"] * (40 + 64 + 4 * 32)
    assert tokens(config_of("sam.yaml")) is None
    spare = tiny()
    spare["data"]["init_args"]["max_candidates"] = None
    spare["model"]["task"]["init_args"]["proposer"]["init_args"]["proposer"]["init_args"]["max_candidates"] = 7
    assert tokens(spare) == 2 * (40 + T + 2 * 7) + 6 * (32 + 7)


def test_too_little_memory_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(trainer={"accelerator": "cpu", "devices": 2})
    assert examine(config).needs == []
    monkeypatch.setattr("maskselect.doctor.report.device_room", lambda trainer: Room("a toy", 10**6, 2))
    found = examine(config)
    (need,) = found.needs
    assert need.kind == "memory" and "(an estimate); a toy has 0 GiB" in need.what
    assert found.memory is not None and found.memory.total > 10**6 / 2


def test_the_device_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    room = device_room({"accelerator": "cpu", "devices": 3})
    assert room.size is not None and room.size > 2**28 and room.processes == 3 and "machine" in room.name
    assert process_count({"accelerator": "cpu"}) == (1, 1)
    assert process_count({"devices": "2", "num_nodes": 4}) == (2, 8)
    assert process_count({"devices": [0, 3]}) == (2, 2)
    absent = device_room({"accelerator": "cuda", "devices": 8})
    assert absent.size is None and absent.processes == 8
    monkeypatch.setattr(devices, "cuda_count", lambda: 8)
    assert process_count({"devices": "auto"}) == (8, 8)
    monkeypatch.setattr(devices, "_CGROUP", devices.Path("/nowhere"))
    assert (device_room({"accelerator": "cpu"}).size or 0) >= room.size
