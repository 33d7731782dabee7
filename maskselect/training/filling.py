"""Frozen features of all images of a run, computed beforehand, on as many machines as one likes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from maskselect.backends.building import build
from maskselect.backends.progress import track
from maskselect.doctor.check import refuse_missing
from maskselect.structures.left_out import LeftOut
from maskselect.structures.protocols import CandidateSystem
from maskselect.systems.loading import on_device
from maskselect.training.cli import without_none
from maskselect.training.data import GroupsData
from maskselect.training.substitutes import UnusableImageError


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
    if not isinstance(data, GroupsData) or data.cache_dir is None:
        raise ValueError("the config's data keep no frozen features; expected GroupsData with a cache_dir")
    if not isinstance(task, CandidateSystem):
        raise ValueError(f"{type(task).__name__} has no frozen features; expected a system that selects candidates")
    task.to(device)  # type: ignore[attr-defined]
    data.cache_dir = Path(data.cache_dir)
    kept = zip(data.stores(task), (data.train_source, data.val_source), strict=True)
    work = [(store, source, item) for store, source in kept for item in range(len(source))][part - 1 :: parts]
    done = 0
    for store, source, item in track(work, len(work), "Frozen features", "images"):
        try:
            done += store.keep(source, item)
        except UnusableImageError as error:
            if left_out is None:
                raise
            left_out.add(error.image, error)
    return done, len(work)
