"""DeepSpeed's ZeRO-2 and ZeRO-3 on two processes of the CPU; `make setup EXTRAS=deepspeed` brings what they need."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from maskselect.backends.checkpoints import read_card, read_tensors
from maskselect.training.merging import merge
from tests.training.sharded_run import system_of, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("deepspeed"), reason="deepspeed is not installed (make setup EXTRAS=deepspeed)"),
]


def _run(folder: Path, stage: int, what: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.training.deepspeed_run", str(folder), str(stage), what]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_step_is_that_of_one_process_and_a_resumed_run_that_of_a_whole_one(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = _run(tmp_path, stage, "steps")
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setattr("maskselect.training.merging.build", lambda config: system_of(lora=False))
    one, four, resumed = (
        read_tensors(merge(tmp_path / name / "last.ckpt", tmp_path / f"{name}.safetensors"))
        for name in ("one", "four", "resumed")
    )
    train(tmp_path / "alone", False, 1, 1)
    torch.testing.assert_close(one, read_tensors(tmp_path / "alone" / "ras.safetensors"), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(resumed, four, atol=0, rtol=0)
    assert read_card(tmp_path / "resumed.safetensors")["steps"] == 4
    assert (tmp_path / "four" / "ras.safetensors").is_file() == (stage == 2)


def test_real_runs_compute_features_validate_and_draw_in_one_stage_and_read_features_in_the_other(
    tmp_path: Path,
) -> None:
    refused = _run(tmp_path, 3, "parallel")
    assert refused.returncode != 0 and "run first: maskselect features" in refused.stderr
    for stage in (2, 3):
        done = _run(tmp_path, stage, "parallel")
        assert done.returncode == 0, done.stderr[-3000:]


def test_a_system_whose_steps_differ_among_processes_trains_in_stage_2_alone(tmp_path: Path) -> None:
    refused = _run(tmp_path, 3, "llmseg")
    assert refused.returncode != 0 and "LLMSeg as configured cannot be trained under ZeRO-3" in refused.stderr
    done = _run(tmp_path, 2, "llmseg")
    assert done.returncode == 0, done.stderr[-3000:]
