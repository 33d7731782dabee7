"""`configs/codetr.yaml` at a tiny size: what it names exists, and a few of its steps lower the loss."""

from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.data import default_collate

from maskselect.backends.building import build
from maskselect.backends.checkpoints import write_checkpoint
from maskselect.data.scenes.stream import SceneDataset
from maskselect.proposers.codetr.objective import CoDetrObjective
from maskselect.proposers.codetr.proposer import CoDetrProposer
from maskselect.training.muon import Muon, muon_groups

TINY = {
    "embed_dim": 32, "depth": 2, "window_size": 4, "global_blocks": [1], "dim": 32, "ffn_dim": 64, "queries": 12,
    "iou_dim": 16, "long_side": 64, "short_side": 64, "patch_size": 8,
}  # fmt: skip


def config() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path("configs/codetr.yaml").read_text())
    task = found["model"]["task"]["init_args"]
    task["model"] = task["model"] | TINY
    return found


def test_a_few_steps_by_the_config_lower_both_losses(tmp_path: Path) -> None:
    found = config()
    found["model"]["task"]["init_args"]["warmup_steps"] = 8
    torch.manual_seed(0)
    task, options = build(found["model"]["task"]), found["model"]
    assert isinstance(task, CoDetrObjective)
    groups = muon_groups(task, options["adam_names"])
    optimizer = Muon(groups, options["lr"], weight_decay=options["weight_decay"])
    data, losses = SceneDataset("train", 0, 2, size=64), list[float]()
    batch = default_collate([data[number] for number in range(2)])
    for _ in range(20):
        loss = task.train().loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), found["trainer"]["gradient_clip_val"])
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[5:8]) < 0.97 * sum(losses[:3])
    assert sum(losses[-3:]) < 0.8 * sum(losses[8:11])
    path = tmp_path / "codetr.safetensors"
    write_checkpoint(path, task.learned_state(), {"system": task.system, "config": found["model"]["task"]})
    assert CoDetrProposer(path, "own").model.config == task.model.config


def test_every_part_that_adam_keeps_exists() -> None:
    task = build(config()["model"]["task"])
    names = [name for name, _ in task.named_parameters()]
    assert all(any(part in name for name in names) for part in config()["model"]["adam_names"])
