"""Data sets by name, as the evaluator asks for them."""

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
    """Samples of a data set, decoded as they are asked for, and how many there will be at most.

    name: of `maskselect.data.catalog`, or one of GENERATED, which without a root, or with one that is absent or empty,
        are generated on the spot; a root holds them in MaskGroups-HQ's format.
    limit: at most so many samples.  scenes, seed: how many scenes to generate, and from what.
    reference_column: see `MaskGroupsDataset`.
    left_out: gets the samples that cannot be read, each with the reason; without it the first such one raises.
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
    return _readable(stored, total, left_out), total


def _readable(stored: SampleReader, total: int, left_out: LeftOut | None) -> Iterator[Sample]:
    """The first `total` samples, without those that cannot be read where `left_out` takes them."""
    for number in range(total):
        sample = None
        with going_on(left_out, f"sample number {number}"):
            sample = stored[number]
        if sample is not None:
            yield sample


def _generated(name: str, split: str, limit: int | None, scenes: int | None, seed: int) -> tuple[Iterator[Sample], int]:
    if scenes is None:
        scenes = 1000 if limit is None else limit  # a scene has one sample at least
    each = GENERATED[name]
    asked = ask_scenes(
        split,
        seed,
        scenes,
        prompts_per_scene=each.plain,
        reasoning_per_scene=each.reasoning,
        unknown_per_scene=each.unknown,
    )
    total = scenes * each.total
    samples = (sample for scene in asked for sample in scene.samples())
    return islice(samples, limit), total if limit is None else min(limit, total)
