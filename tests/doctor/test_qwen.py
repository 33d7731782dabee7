"""Doctor on Qwen2.5-VL: what it lacks, and its parameters without its weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maskselect.backends.building import build
from maskselect.backends.precision import upcast
from maskselect.doctor.check import missing
from maskselect.doctor.counts import build_skeleton, count, named_parameters, total
from maskselect.doctor.memory import count_tokens
from maskselect.lmm.qwen_vl import QwenVl
from tests.doctor.machines import config_of, put_into_cache, saved
from tests.systems.tiny import QWEN

STACK = ("paper/ras_13b.yaml", "paper/overlays/qwen.yaml", "paper/overlays/lora.yaml")


def lmm(**arguments: Any) -> dict[str, Any]:
    return {"class_path": "maskselect.lmm.qwen_vl.QwenVl", "init_args": arguments}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(QwenVl(sizes=QWEN), tmp_path_factory.mktemp("qwen"))


def test_published_sizes_to_the_last_tensor() -> None:
    """16,584,333,312 bytes of two each in the index of the published files."""
    skeleton = build_skeleton(lmm(model="Qwen/Qwen2.5-VL-7B-Instruct"))
    parts = {part.name: part for part in count(named_parameters(skeleton))}
    assert total(parts.values()).total == 16_584_333_312 // 2
    assert parts["vision tower"].frozen + parts["image projector"].trained == 676_550_144
    assert set(parts) == {"vision tower", "image projector", "language model", "output layer"}
    smallest = total(count(named_parameters(build_skeleton(lmm(model="Qwen/Qwen2.5-VL-3B-Instruct"))))).total
    assert smallest == pytest.approx(3.755e9, rel=0.001)


@pytest.mark.parametrize(("model", "size"), [("Qwen2-VL-7B", 8_291_375_616), ("Qwen2-VL-2B", 2_208_985_600)])
def test_qwen2_vl_has_the_published_number_of_parameters(model: str, size: int) -> None:
    skeleton = build_skeleton(lmm(model=f"Qwen/{model}-Instruct"))
    assert total(count(named_parameters(skeleton))).total == size


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"lora": {"r": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj"]}},
        {"dtype": "bfloat16", "lora": {"r": 2}},
    ],
    ids=["all", "lora", "bf16"],
)
def test_a_folders_model_is_counted_as_it_is_built(folder: Path, arguments: dict[str, Any]) -> None:
    skeleton = build_skeleton(lmm(model=str(folder), **arguments)).whole
    assert skeleton is not None and all(p.device.type == "meta" for p in skeleton.parameters())
    real = build(lmm(model=str(folder), **arguments))
    upcast(real)
    drawn, there = (
        {name: (p.shape, p.dtype, p.requires_grad) for name, p in module.named_parameters()}
        for module in (skeleton, real)
    )
    assert drawn == there
    assert any(p.dtype == torch.bfloat16 for p in skeleton.parameters()) == ("dtype" in arguments)


def test_the_overlay_lacks_qwen_and_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of(*STACK)
    told = {need.what: need.help for need in missing(config)}
    assert told["Qwen/Qwen2.5-VL-7B-Instruct, Qwen2.5-VL or Qwen2-VL"] == "hf download Qwen/Qwen2.5-VL-7B-Instruct"
    assert not any("LLaVA" in what for what in told)
    put_into_cache(alone, "Qwen/Qwen2.5-VL-7B-Instruct", "config.json", "tokenizer.json", "model.safetensors")
    assert not any("Qwen" in need.what for need in missing(config))
    task = config_of(*STACK)["model"]["task"]
    small = {"class_path": "maskselect.encoders.position.SinusoidEncoder", "init_args": {"grid": 8, "frequencies": 3}}
    task["init_args"]["encoders"]["init_args"]["encoders"] = [small]
    task["init_args"]["proposer"] = {"class_path": "maskselect.proposers.regions.RegionProposer"}
    (alone / "models--Qwen--Qwen2.5-VL-7B-Instruct/snapshots/abc/config.json").unlink()
    skeleton = build_skeleton(task)
    assert skeleton.reasons == [] and skeleton.whole is not None
    trained = {n for n, p in skeleton.whole.named_parameters() if p.requires_grad}
    assert any(".merger." in n for n in trained) and not any("lm_head" in n or ".blocks." in n for n in trained)
    assert count_tokens(skeleton.whole, config) == 4 * (40 + 1280 + 2 * 100) + 16 * (32 + 100)
