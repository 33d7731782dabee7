"""A tiny RAS on disk, whose parts are this package's own, and a report about it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.evaluation.samples import build_report
from maskselect.predictor import Model, fingerprint
from maskselect.proposers.regions import RegionProposer
from maskselect.reports.records import RecordFile, records_path
from maskselect.structures.scored import Scored
from tests.systems.tiny import SIZES, tiny_ras

IMAGE = np.kron(np.random.default_rng(0).integers(0, 255, (2, 3, 3), dtype=np.uint8), np.ones((20, 20, 1), np.uint8))
PROMPTS = ["the red mugs", "stars"]
SCENES = {
    "class_path": "maskselect.scenes.groups.SceneGroups",
    "init_args": {"split": "train", "seed": 3, "count": 900},
}


def config(**lmm: Any) -> dict[str, Any]:
    """Of the tiny RAS. lmm: settings of its language model."""
    return {
        "class_path": "maskselect.systems.ras.RAS",
        "init_args": {
            "proposer": {"class_path": "maskselect.proposers.regions.RegionProposer"},
            "encoders": {
                "class_path": "maskselect.encoders.ensemble.EncoderEnsemble",
                "init_args": {
                    "encoders": [
                        {
                            "class_path": "maskselect.encoders.position.SinusoidEncoder",
                            "init_args": {"grid": 8, "frequencies": 3},
                        }
                    ]
                },
            },
            "lmm": {"class_path": "maskselect.lmm.llava.Llava", "init_args": {"sizes": vars(SIZES), **lmm}},
            "stage": 2,
        },
    }


def write_ras(folder: Path, **fields: Any) -> Path:
    """A checkpoint with random weights. fields: of its card besides system, config, threshold and data."""
    data = {"class_path": "maskselect.training.data.GroupsData", "init_args": {"train": SCENES}}
    card = {"system": "ras", "config": config(), "threshold": 0.25, "data": data}
    system = tiny_ras(RegionProposer())
    write_checkpoint(folder / "tiny.safetensors", system.learned_state(), card | fields)
    return folder / "tiny.safetensors"


def write_base(folder: Path) -> Path:
    """The language model of `write_ras` as a checkpoint of its own."""
    model = tiny_ras(RegionProposer()).lmm.model
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    write_checkpoint(folder / "llava.safetensors", tensors, {"system": "llava", "config": {}})
    return folder / "llava.safetensors"


def scores(model: Model) -> np.ndarray:
    """(P, N) of the prompts on the image."""
    found = np.stack([group.candidate_scores for group in model.select_many(IMAGE, PROMPTS)])
    assert found.shape[1] > 1
    return found


def write_report(
    path: Path, checkpoint: Path, named: str | None = None, with_gt: bool = False, seed: int = 5, overlap: Any = ()
) -> dict[str, Any]:
    """What `evaluate` leaves of two samples of a scene, with the file of samples beside it, and the report."""
    rows = [_scored("a", references=0, hit=1.0), _scored("b", references=1, hit=0.5)]
    named = named or str(checkpoint)
    report = build_report(rows, "scenes", "test", named, with_gt, "maskselect", overlap)
    path.write_text(json.dumps(report))
    key = {"model": fingerprint(checkpoint), "data": ["scenes", "None", "test"], "seed": seed, "with_gt": with_gt}
    with RecordFile(records_path(path), key | {"protocol": "maskselect"}) as records:
        for row in rows:
            records.add(row)
    return report


def _scored(name: str, references: int, hit: float) -> Scored:
    import torch

    from maskselect.metrics.referring import ReferringMetrics
    from maskselect.metrics.summary import sums_of

    target = torch.zeros(1, 8, 8, dtype=torch.bool)
    target[0, :4] = True
    answer = target.clone()
    answer[0, int(4 * hit) :] = False
    metrics = ReferringMetrics(protocol="maskselect")
    metrics.update(answer, target, target)
    sums = sums_of(metrics)
    return Scored(name, "test-5-0", name, "category", references, 1, 1, 0.5, sums["iou"], 1, 0.1, sums)
