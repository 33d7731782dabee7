"""Batches as `GroupsData` makes them, in one call."""

from pathlib import Path
from typing import Any

import numpy as np

from maskselect.structures.groups import GroupSource, PrepareSettings
from maskselect.structures.left_out import LeftOut
from maskselect.structures.sample import Batch
from maskselect.systems.preparing import CandidatePreparer
from maskselect.training.substitutes import made_or_substituted


def batch_of(
    system: Any,
    source: GroupSource,
    draws: list[tuple[int, int]],
    prompts: int,
    cache_dir: Path | None = None,
    left_out: LeftOut | None = None,
    **settings: Any,
) -> Batch:
    """The training batch of (image number, seed) pairs."""
    preparer = CandidatePreparer(system, PrepareSettings(cache_dir, **settings), True)

    def item(number: int, seed: int) -> Any:
        def make(chosen: int) -> Any:
            return preparer.prepare(source, chosen, np.random.default_rng(seed), prompts)

        return made_or_substituted(make, source, number, seed, left_out)

    return preparer.collate([item(number, seed) for number, seed in draws])
