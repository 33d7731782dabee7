"""Data sets by name, as the evaluator asks for them."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from maskselect.data.catalog import CATALOG, find_entry
from maskselect.data.scenes.samples import ask_scenes
from maskselect.structures.sample import Sample

_PROMPTS_PER_SCENE = 3

GENERATED = {"scenes": (_PROMPTS_PER_SCENE, 0), "scenes-reasoning": (0, _PROMPTS_PER_SCENE)}
"""Data sets that are generated on the spot: how many prompts there are about a scene, and how many reasoning prompts,
each followed by the same asked by name. Of one split and seed both are about the same pictures."""


def open_samples(
    name: str,
    root: Path | None,
    split: str,
    *,
    limit: int | None = None,
    reference_column: str | None = None,
    scenes: int | None = None,
    seed: int = 0,
) -> tuple[Iterator[Sample], int]:
    """Samples of a data set, decoded as they are asked for, and how many there will be at most.

    name: of `maskselect.data.catalog`, or one of GENERATED, which without a root, or with one that is absent or empty,
        are generated on the spot; a root holds them in MaskGroups-HQ's format.
    limit: at most so many samples.  scenes, seed: how many scenes to generate, and from what.
    reference_column: see `MaskGroupsDataset`.
    Raises FileNotFoundError or ValueError when the data set is not there or not as it should be.
    """
    if name not in CATALOG and name not in GENERATED:
        raise ValueError(f"unknown dataset {name!r}; expected one of {', '.join([*CATALOG, *GENERATED])}")
    empty = root is None or not root.exists() or (root.is_dir() and not any(root.iterdir()))
    if name in GENERATED and empty:
        return _generated(name, split, limit, scenes, seed)
    entry = find_entry("maskgroups" if name in GENERATED else name)
    if root is None:
        raise ValueError(f"dataset {name!r} needs --root: a folder with the data; get it from {entry.page}")
    stored = entry.open(root, split, **({"reference_column": reference_column} if reference_column else {}))
    total = len(stored) if limit is None else min(limit, len(stored))
    return (stored[number] for number in range(total)), total


def _generated(name: str, split: str, limit: int | None, scenes: int | None, seed: int) -> tuple[Iterator[Sample], int]:
    if scenes is None:
        scenes = 1000 if limit is None else limit  # a scene has one sample at least
    prompts, reasoning = GENERATED[name]
    asked = ask_scenes(split, seed, scenes, prompts_per_scene=prompts, reasoning_per_scene=reasoning)
    total = scenes * (prompts + 2 * reasoning)
    samples = (sample for scene in asked for sample in scene.samples())
    return islice(samples, limit), total if limit is None else min(limit, total)
