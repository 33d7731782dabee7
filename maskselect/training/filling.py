"""Computes the frozen features of all images of a run in advance, on any number of machines."""

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


def fill(config: Mapping[str, Any], part: int, parts: int, device: str, left_out: LeftOut) -> tuple[int, int]:
    """Compute and cache the frozen features of every image of a run that has none yet.

    Args:
        config: from `training.cli.parse` with `with_none`; its trainer has no effect.
        part, parts: take every `parts`-th image, from the `part`-th on; `part` begins at 1. Several processes may fill
            one folder.
        device: where the frozen parts run.
        left_out: receives the images that cannot be used.

    Returns:
        The number of images computed, and the number of images of this part.

    Raises:
        ValueError: for a config whose data or task cache no frozen features.
        MissingError: when weights or data are missing.
    """
    refuse_missing({key: without_none(config[key]) for key in ("model", "data")})
    seed = config.get("seed_everything")
    if not isinstance(seed, bool | None):
        torch.manual_seed(seed)  # randomly initialised frozen parts are then those of the run
    task = build(on_device(config["model"]["task"], device))
    data = build(config["data"])
    if not isinstance(data, GroupsData) or data.settings.cache_dir is None:
        raise ValueError("the config's data keep no frozen features; expected GroupsData with a cache_dir")
    if not isinstance(task, GroupLearner):
        raise ValueError(f"{type(task).__name__} has no frozen features; expected a system that learns from prompts")
    cast(nn.Module, task).to(device)
    work: list[tuple[StoringPreparer, Any, int]] = []
    for preparer, source in zip(data.preparers(task), (data.train_source, data.val_source), strict=True):
        if not isinstance(preparer, StoringPreparer):
            raise ValueError(f"{type(task).__name__} has no frozen features; expected a system that caches features")
        work += [(preparer, source, item) for item in range(len(source))]
    work = work[part - 1 :: parts]
    done = 0
    for preparer, source, item in track(work, len(work), "Frozen features", "images"):
        try:
            done += preparer.keep(source, item)
        except UnusableImageError as error:
            left_out.add(error.image, error)
    return done, len(work)
