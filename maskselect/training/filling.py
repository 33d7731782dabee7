"""Frozen features of all images of a run, computed beforehand, on as many machines as one likes."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from maskselect.backends.building import build, on_device
from maskselect.backends.progress import track
from maskselect.doctor.check import refuse_missing
from maskselect.structures.groups import UnusableImageError
from maskselect.structures.left_out import LeftOut
from maskselect.structures.protocols import GroupLearner, StoringPreparer
from maskselect.training.cli import without_none
from maskselect.training.data import GroupsData


def fill(
    config: Mapping[str, Any], part: int = 1, parts: int = 1, device: str = "cpu", left_out: LeftOut | None = None
) -> tuple[int, int]:
    """Compute and keep the record of every image of a run that is not kept yet: how many were, of how many.

    config: as `training.cli.parse` gives it with None; its trainer is not asked.
    part, parts: every `parts`-th image, beginning with the `part`-th, from 1. Several processes may fill one folder.
    left_out: gets the images that cannot be used; without it the first such image raises.
    Raises ValueError for a config whose data keep no frozen features, MissingError when weights or data are missing.
    """
    refuse_missing({key: without_none(config[key]) for key in ("model", "data")})
    seed = config.get("seed_everything")
    if not isinstance(seed, bool | None):
        torch.manual_seed(seed)  # frozen parts that no file gives are drawn as in the run
    task = build(on_device(config["model"]["task"], device))
    data = build(config["data"])
    if not isinstance(data, GroupsData) or data.settings.cache_dir is None:
        raise ValueError("the config's data keep no frozen features; expected GroupsData with a cache_dir")
    if not isinstance(task, GroupLearner):
        raise ValueError(f"{type(task).__name__} has no frozen features; expected a system that learns from prompts")
    cast(nn.Module, task).to(device)
    work = []
    for preparer, source in zip(data.preparers(task), (data.train_source, data.val_source), strict=True):
        if not isinstance(preparer, StoringPreparer):
            raise ValueError(f"{type(task).__name__} has no frozen features; expected a system whose features are kept")
        work += [(preparer, source, item) for item in range(len(source))]
    work = work[part - 1 :: parts]
    done = 0
    for preparer, source, item in track(work, len(work), "Frozen features", "images"):
        try:
            done += preparer.keep(source, item)
        except UnusableImageError as error:
            if left_out is None:
                raise
            left_out.add(error.image, error)
    return done, len(work)
