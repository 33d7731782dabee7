"""FSDP2 on two processes of the CPU: the same step as one process, resumed exactly, and merged into safetensors."""

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from maskselect.backends.checkpoints import read_card, read_tensors
from maskselect.recipes.compact.learner import CompactLearner
from maskselect.training.callbacks import SaveWeights
from maskselect.training.merging import merge
from maskselect.training.module import TrainingModule
from maskselect.training.sharding import shard
from tests.systems.tiny import tiny_ras
from tests.training.sharded_run import train


@pytest.fixture(scope="module", params=["full", "lora"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind."""
    folder = tmp_path_factory.mktemp(request.param)
    run_sharded(folder, request.param)
    return folder


def run_sharded(folder: Path, what: str) -> None:
    command = [sys.executable, "-m", "tests.training.sharded_run", str(folder), what]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_sharded_step_is_the_step_of_one_process(runs: Path, tmp_path: Path) -> None:
    train(tmp_path, runs.name.startswith("lora"), 1, 1)
    alone, sharded = (read_tensors(folder / "ras.safetensors") for folder in (tmp_path, runs / "one"))
    assert alone.keys() == sharded.keys()
    torch.testing.assert_close(sharded, alone, atol=1e-4, rtol=1e-3)  # float16 files
    untrained = TrainingModule(tiny_ras()).task.state_dict()
    moved = [name for name, tensor in alone.items() if name in untrained and not torch.equal(tensor, untrained[name])]
    assert len(moved) > 5


def test_a_sharded_step_in_half_precision_moves_as_one_process_does(tmp_path: Path) -> None:
    run_sharded(tmp_path, "half")
    train(tmp_path / "alone", False, 1, 1, half=True)
    alone, sharded = (read_tensors(tmp_path / folder / "ras.safetensors") for folder in ("alone", "one"))
    before = {name: p.detach() for name, p in system_like(tmp_path).named_parameters() if p.requires_grad}
    names = [name for name, tensor in alone.items() if name in before and not torch.equal(tensor, before[name].half())]
    assert any(".layers.0." in name for name in names)

    def step(tensors: dict[str, Tensor]) -> Tensor:
        return torch.cat([(tensors[name].float() - before[name]).flatten() for name in names])

    assert float((step(sharded) - step(alone)).norm() / step(alone).norm()) < 0.05


@pytest.mark.parametrize("what", ["parallel", "decoder", "qwen", "llmseg"])
def test_a_sharded_run_computes_features_validates_and_draws(what: str, tmp_path: Path) -> None:
    run_sharded(tmp_path, what)
    events = EventAccumulator(str(next(tmp_path.glob("tensorboard/**/events*"))), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("validation/0")] == [2, 4]
    assert len(events.Scalars("val/loss")) == 2
    (weights,) = tmp_path.glob("*.safetensors")
    card = read_card(weights)
    assert card["steps"] == 4 and (what == "llmseg" or 0 < card["threshold"] < 1)
    rest = torch.load(next(tmp_path.glob("**/last.ckpt/meta.pt")), weights_only=True)
    merged = SaveWeights.card_in(rest["callbacks"]) or {}
    assert {key: card.get(key) for key in ("metrics", "threshold")} == {
        key: merged.get(key) for key in ("metrics", "threshold")
    }
    assert len(list(tmp_path.glob("features/**/*.safetensors"))) >= 4


def test_a_sharded_run_resumes_exactly(runs: Path) -> None:
    if not (runs / "resumed").is_dir():
        pytest.skip("resuming is run without LoRA")
    whole, resumed = (read_tensors(runs / name / "ras.safetensors") for name in ("four", "resumed"))
    torch.testing.assert_close(resumed, whole, atol=0, rtol=0)
    assert read_card(runs / "resumed" / "ras.safetensors")["steps"] == 4


def test_shards_merge_to_what_the_run_wrote(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskselect.training.merging.build", lambda config: system_like(runs))
    merged = merge(runs / "one" / "last.ckpt", tmp_path / "merged.safetensors")
    torch.testing.assert_close(read_tensors(merged), read_tensors(runs / "one" / "ras.safetensors"), atol=0, rtol=0)
    assert read_card(merged)["system"] == "ras" and read_card(merged)["steps"] == 1


def system_like(runs: Path) -> nn.Module:
    """A new system of the sizes that were trained."""
    from tests.training.sharded_run import system_of

    return system_of(runs.name.startswith("lora"))


def test_a_file_of_one_process_merges_too_and_others_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, False, 1, 1)
    written = read_tensors(tmp_path / "ras.safetensors")
    (tmp_path / "ras.safetensors").unlink()
    monkeypatch.setattr("maskselect.training.merging.build", lambda config: system_like(tmp_path))
    torch.testing.assert_close(read_tensors(merge(tmp_path / "last.ckpt")), written, atol=0, rtol=0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}, "callbacks": {}}, tmp_path / "other.ckpt")
    for name, error, words in (
        ("absent.ckpt", FileNotFoundError, "is not there"),
        ("empty", ValueError, "without meta.pt"),
        ("text.ckpt", ValueError, "cannot be read"),
        ("other.ckpt", ValueError, "has no card"),
    ):
        with pytest.raises(error, match=words):
            merge(tmp_path / name)


def deepspeed_folder(folder: Path, file: str) -> Path:
    """A folder as Lightning and DeepSpeed leave it: all but tensors stands in a process's model states."""
    states = folder / "last.ckpt" / "checkpoint" / file
    states.parent.mkdir(parents=True)
    card = json.dumps({"system": "ras", "config": {}})
    torch.save({"callbacks": {"SaveWeights": {"card": card}}, "global_step": 7}, states)
    return folder / "last.ckpt"


@pytest.mark.parametrize("file", ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"])
def test_what_deepspeed_leaves_is_merged_by_its_own_tool(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's layout and names are theirs; their tool, which is not installed here, is stood in for."""
    checkpoint, system = deepspeed_folder(tmp_path, file), system_like(tmp_path)
    monkeypatch.setattr("maskselect.training.merging.build", lambda config: system_like(tmp_path))
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ValueError, match="make setup EXTRAS=deepspeed"):
        merge(checkpoint)
    tool: Any = types.ModuleType("deepspeed.utils.zero_to_fp32")
    whole = {f"task.{name}": tensor + 1 for name, tensor in system.state_dict().items()}
    tool.get_fp32_state_dict_from_zero_checkpoint = lambda path: whole
    for name in ("deepspeed", "deepspeed.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, tool.__name__, tool)
    merged = merge(checkpoint)
    assert read_card(merged)["steps"] == 7
    for name, tensor in read_tensors(merged).items():
        torch.testing.assert_close(tensor, whole[f"task.{name}"], atol=2e-3, rtol=2e-3)


def test_under_deepspeed_weights_are_neither_loaded_nor_written_by_us(tmp_path: Path) -> None:
    module = TrainingModule(tiny_ras())
    kept = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    checkpoint: dict[str, Any] = {"callbacks": {}, "global_step": 1}  # its strategy takes the weights out
    module.on_load_checkpoint(checkpoint)
    assert "state_dict" not in checkpoint
    assert all(torch.equal(tensor, kept[name]) for name, tensor in module.state_dict().items())
    for parameter in module.parameters():
        cast(Any, parameter).ds_id = 0
        parameter.data = torch.empty(0)
    trainer: Any = types.SimpleNamespace(lightning_module=module)
    SaveWeights(tmp_path, 10, {"config": {}}).write(trainer)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_sharded_is_told_before_any_process_group() -> None:
    with pytest.raises(ValueError, match="CompactLearner is small and cannot be sharded; use ddp"):
        shard(CompactLearner(), None)
    with pytest.raises(ValueError, match="gradient_checkpointing must be true"):
        shard(tiny_ras(), None)
