"""Training runs: resuming is exact, frozen weights stay out of checkpoints, weights are written with their card."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger

from maskselect.backends.configs import BASE, read_configs
from maskselect.predictor import Model
from maskselect.scenes.groups import SceneGroups
from maskselect.training.callbacks import (
    SaveWeights,
    best_threshold,
    without_starts,
)
from maskselect.training.data import GroupsData
from maskselect.training.module import TrainingModule
from tests.systems.tiny import tiny_llmseg, tiny_ras


def _fit(
    folder: Path,
    steps: int,
    cache: Path,
    resume: Path | None = None,
    stop: int | None = None,
    make: Callable[[], torch.nn.Module] = tiny_ras,
    **options: Any,
) -> list[float]:
    """Train a tiny system for `stop` of `steps` steps and give its losses. options: of the data."""
    sources = SceneGroups("train", 0, 6), SceneGroups("val", 0, 2)
    data = GroupsData(*sources, **{"batch_size": 2, "prompts_per_image": 3, "cache_dir": cache} | options)
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=CSVLogger(folder, "csv"),
        callbacks=[SaveWeights(folder, 3, {"config": {}, "data_seed": 0}), _Stop(stop)],
        log_every_n_steps=1,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(TrainingModule(make(), lr=1e-3), data, ckpt_path=resume)
    (log,) = sorted(folder.rglob("metrics.csv"))[-1:]
    with log.open() as lines:
        return [float(row["train/loss"]) for row in csv.DictReader(lines) if row.get("train/loss")]


class _Stop(Callback):
    """Stops as if the power went out after `after` steps."""

    def __init__(self, after: int | None) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.after:
            trainer.should_stop = True


@pytest.mark.parametrize(
    ("make", "options"), [(tiny_ras, {}), (tiny_llmseg, {}), (tiny_ras, {"batch_size": 4, "batch_prompts": 5})]
)
def test_resumed_run_has_the_losses_of_an_uninterrupted_one(
    tmp_path: Path, make: Callable[[], torch.nn.Module], options: dict[str, Any]
) -> None:
    kept = tmp_path / "cache"
    whole = _fit(tmp_path / "whole", 8, kept, make=make, **options)
    _fit(tmp_path / "part", 8, kept, stop=3, make=make, **options)
    rest = _fit(tmp_path / "rest", 8, kept, resume=tmp_path / "part" / "last.ckpt", make=make, **options)
    assert len(whole) == 8 and len(rest) == 5
    assert rest == pytest.approx(whole[3:], abs=1e-6)


def test_checkpoints_hold_what_trains_and_weights_have_a_card(tmp_path: Path) -> None:
    _fit(tmp_path, 3, tmp_path / "cache")
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    learned = {f"task.{name}" for name in tiny_ras().learned_state()}
    assert learned <= state.keys() and not any(name.startswith("task.proposer") for name in state)
    card = json.loads((tmp_path / "ras.json").read_text())
    assert card["system"] == "ras" and card["steps"] == 3 and card["data_seed"] == 0
    assert (tmp_path / "ras.safetensors").is_file()


def test_a_task_without_losses_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear cannot be trained"):
        TrainingModule(torch.nn.Linear(1, 1))


def test_pictures_have_the_precision_of_a_step_where_what_trains_runs_and_there_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, seen = TrainingModule(tiny_ras()), []
    monkeypatch.setattr(TrainingModule, "autocast", lambda self: torch.autocast("cpu", torch.bfloat16))
    task: Any = module.task

    def noting(name: str) -> None:
        method = getattr(task, name)
        monkeypatch.setattr(
            task, name, lambda *given: (seen.append((name, torch.is_autocast_enabled("cpu"))), method(*given))[1]
        )

    for name in ("encode", "pool_features", "read_candidates", "score_candidates"):
        noting(name)
    with module.autocast():
        Model(task).select(np.zeros((40, 60, 3), np.uint8), "stars")
    assert dict(seen) == {"encode": False, "pool_features": False, "read_candidates": True, "score_candidates": True}


def test_best_threshold() -> None:
    metrics = {"val/f1@0.3": 0.8, "val/f1@0.5": 0.9, "val/f1@0.8": 0.9, "val/loss": 1.0}
    assert best_threshold(metrics) == {"threshold": 0.5} and best_threshold({"val/loss": 1.0}) == {}


def test_starts_are_dropped_from_cards() -> None:
    config = {
        "class_path": "x",
        "init_args": {
            "start": "a",
            "decoder_start": "c",
            "lmm": {"init_args": {"start": "b", "r": 1}},
            "list": [{"start": 1}],
        },
    }
    assert without_starts(config) == {"class_path": "x", "init_args": {"lmm": {"init_args": {"r": 1}}, "list": [{}]}}


OVERLAYS = sorted(path for path in Path("configs/overlays").glob("*.yaml") if BASE not in path.read_text())
WITH_BASE = [path for path in Path("configs").rglob("*.yaml") if BASE in path.read_text()]
PAPER_OVERLAYS = set(Path("configs/paper").glob("llmseg_7b_*.yaml"))  # see tests/training/test_paper_llmseg.py
PAPER_OVERLAYS |= set(Path("configs/paper/overlays").glob("*.yaml"))  # see tests/training/test_paper_ras.py
HUB = set(Path("configs/hub").glob("*.yaml"))  # no training; see tests/systems/test_named_models.py
WHOLE = sorted(set(Path("configs").rglob("*.yaml")) - set(OVERLAYS) - PAPER_OVERLAYS - HUB | set(WITH_BASE))


@pytest.mark.parametrize("path", WHOLE, ids=str)
def test_every_config_parses(fit_parser: LightningArgumentParser, path: Path) -> None:
    config = read_configs([path])
    parsed = fit_parser.parse_object(config)
    assert parsed.model.task.class_path == config["model"]["task"]["class_path"]


@pytest.mark.parametrize("path", OVERLAYS, ids=str)
def test_every_overlay_changes_a_config_only_where_it_says(fit_parser: LightningArgumentParser, path: Path) -> None:
    base = yaml.safe_load(Path("configs/ras.yaml").read_text())
    overlay = yaml.safe_load(path.read_text())
    parsed = fit_parser.parse_object(overlay, fit_parser.parse_object(base))
    asked = {**base["data"]["init_args"]["train"], **overlay["data"]["init_args"]["train"]}
    source = parsed.data.init_args.train
    assert source.class_path == asked["class_path"]
    assert {name: str(source.init_args[name]) for name in asked["init_args"]} == {
        name: str(value) for name, value in asked["init_args"].items()
    }
    assert parsed.data.init_args.prompts_per_image == base["data"]["init_args"]["prompts_per_image"]
