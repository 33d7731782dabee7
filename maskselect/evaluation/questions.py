"""The evaluator's samples: data sets by name, and generated scenes."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from maskselect.data.catalog import CATALOG, SampleReader, find_entry
from maskselect.scenes.asking import GENERATED
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.left_out import LeftOut, going_on
from maskselect.structures.sample import Sample


def open_samples(
    name: str,
    root: Path | None,
    split: str,
    *,
    limit: int | None = None,
    reference_column: str | None = None,
    scenes: int | None = None,
    seed: int = 0,
    left_out: LeftOut | None = None,
) -> tuple[Iterator[Sample], int]:
    """Open the samples of a data set, which are decoded one by one.

    Args:
        name: of `maskselect.data.catalog`, or of GENERATED. Generated scenes are read from `root` in MaskGroups-HQ's
            format, or generated if that is None, absent or empty.
        root: folder of the data set.
        split: of the data set.
        limit: maximum number of samples.
        reference_column: see `MaskGroupsDataset`.
        scenes: number of scenes to generate.
        seed: of the generated scenes.
        left_out: receives the samples that cannot be read; without it the first failure raises.

    Returns:
        The samples, and their maximum number.

    Raises:
        FileNotFoundError: the data set does not exist.
        ValueError: the name is unknown, `root` is missing, or the data set is damaged.
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
    return _readable(stored, total, left_out), total


def _readable(stored: SampleReader, total: int, left_out: LeftOut | None) -> Iterator[Sample]:
    """The first `total` samples, without those that `left_out` receives."""
    for number in range(total):
        sample = None
        with going_on(left_out, f"sample number {number}"):
            sample = stored[number]
        if sample is not None:
            yield sample


def _generated(name: str, split: str, limit: int | None, scenes: int | None, seed: int) -> tuple[Iterator[Sample], int]:
    if scenes is None:
        scenes = 1000 if limit is None else limit  # a scene has one sample at least
    prompts = GENERATED[name]
    drawn = ask_scenes(
        split,
        seed,
        scenes,
        prompts_per_scene=prompts.plain,
        reasoning_per_scene=prompts.reasoning,
        unknown_per_scene=prompts.unknown,
        twins_per_scene=prompts.twins,
    )
    total = scenes * prompts.total
    samples = (sample for scene in drawn for sample in scene.samples())
    return islice(samples, limit), total if limit is None else min(limit, total)
