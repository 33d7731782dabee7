"""Batches as `GroupsData` makes them, in one call."""

from pathlib import Path
from typing import Any

from maskselect.structures.groups import GroupSource
from maskselect.structures.left_out import LeftOut
from maskselect.structures.sample import Batch
from maskselect.training.data import GroupsData


def batch_of(
    system: Any,
    source: GroupSource,
    draws: list[tuple[int, int]],
    prompts: int,
    cache_dir: Path | None = None,
    left_out: LeftOut | None = None,
) -> Batch:
    """The training batch of (image number, seed) pairs. left_out: receives the images that cannot be used."""
    data = GroupsData(source, source, prompts_per_image=prompts, max_candidates=None, cache_dir=cache_dir)
    data.left_out = LeftOut() if left_out is None else left_out
    batch: Batch = data.collate(data.preparers(system)[0], source, draws)
    return batch
