"""The mean of checkpoints."""

from pathlib import Path

import pytest
import torch

from maskselect.backends.checkpoints import average_checkpoints, read_card, read_tensors, write_checkpoint


def _written(path: Path, values: list[float], system: str = "ras") -> Path:
    card = {"system": system, "config": {}, "threshold": 0.5, "metrics": {"val/loss": 1.0}}
    write_checkpoint(path, {"weight": torch.tensor(values), "switch": torch.tensor([True, False])}, card)
    return path


def test_mean_of_two(tmp_path: Path) -> None:
    parts = [_written(tmp_path / "a.safetensors", [1.0, 2.0]), _written(tmp_path / "b.safetensors", [3.0, -2.0])]
    average_checkpoints(parts, tmp_path / "mean.safetensors")
    assert read_tensors(tmp_path / "mean.safetensors")["weight"].tolist() == [2.0, 0.0]
    assert read_tensors(tmp_path / "mean.safetensors")["switch"].tolist() == [True, False]
    card = read_card(tmp_path / "mean.safetensors")
    assert card["threshold"] == 0.5 and card["average_of"] == [str(p) for p in parts] and "metrics" not in card


@pytest.mark.parametrize(
    ("values", "system", "told"), [([1.0], "ras", "other tensors"), ([1.0, 2.0], "sam", "of system")]
)
def test_what_does_not_fit_is_refused(tmp_path: Path, values: list[float], system: str, told: str) -> None:
    parts = [
        _written(tmp_path / "a.safetensors", [1.0, 2.0]),
        _written(tmp_path / "b.safetensors", values, system),
    ]
    with pytest.raises(ValueError, match=told):
        average_checkpoints(parts, tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()
