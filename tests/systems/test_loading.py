"""A system from its checkpoint computes where it is asked to, its proposer too."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from maskselect.backends.checkpoints import find_checkpoint
from maskselect.systems import loading
from maskselect.systems.loading import load_system


def _innermost(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of SAM's proposer, in the one that mends its outlines."""
    arguments: dict[str, Any] = config["init_args"]["proposer"]["init_args"]["proposer"]["init_args"]
    return arguments


def test_a_card_of_a_model_trained_on_a_gpu_loads_on_the_cpu(tmp_path: Path) -> None:
    file = find_checkpoint("ras")
    shutil.copy(file, tmp_path / "ras.safetensors")
    card = json.loads(file.with_suffix(".json").read_text())
    _innermost(card["config"])["device"] = "cuda"
    (tmp_path / "ras.json").write_text(json.dumps(card))
    system: Any = load_system(tmp_path)[0]
    assert {p.device.type for p in (*system.parameters(), *system.proposer.proposer.sam.parameters())} == {"cpu"}


def test_the_proposer_goes_where_the_system_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[dict[str, Any]] = []

    def note(config: dict[str, Any]) -> None:
        built.append(config)
        raise InterruptedError

    monkeypatch.setattr(loading, "build", note)
    with pytest.raises(InterruptedError):
        load_system("ras", torch.device("cuda", 1))
    assert _innermost(built[0])["device"] == "cuda:1"
    assert "device" not in built[0]["init_args"] and "device" not in built[0]["init_args"]["encoders"]["init_args"]
