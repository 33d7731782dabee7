"""Runs the units of a build shard by shard, in this process or on Ray Data, and resumes an interrupted build.

A shard holds a fixed run of units and is one file, written atomically. The records of a unit must depend on the unit
alone, so that the files are equal in any order and on any engine.
"""

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from maskselect.backends.progress import track
from maskselect.ops.atomic import atomic_file, remove_leftovers, write_text
from maskselect.recipes.ray_jobs import run_on_ray

Record = dict[str, Any]
"""JSON values by name."""
Engine = Literal["local", "ray"]
STATE = "build.json"


@dataclass
class Built:
    """The records of a unit, and counts of events by name (kept, rejected by reason)."""

    records: list[Record] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Worker(Protocol):
    """Makes records. It must be picklable, and open files, models and connections at first use."""

    def build(self, unit: Record) -> Built:
        """The records of one unit.

        Raises:
            ValueError, OSError: the unit cannot be built; this ends the build.
        """
        ...


class ShardForm(Protocol):
    """The file format of a shard. It must be picklable."""

    suffix: str

    def write(self, path: Path, records: list[Record]) -> None:
        """Write one shard."""
        ...


class JsonLines:
    """One JSON record a line."""

    suffix = "jsonl"

    def write(self, path: Path, records: list[Record]) -> None:
        """Write one shard."""
        path.write_text("".join(json.dumps(record) + "\n" for record in records))

    @staticmethod
    def read(path: Path) -> list[Record]:
        """The records of a shard."""
        return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class Shards:
    """The files of a build: `{stem}-00000-of-00012.{suffix}` in `folder`."""

    folder: Path
    stem: str
    form: ShardForm
    total: int

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{self.stem}-{number:05d}-of-{self.total:05d}.{self.form.suffix}"

    def counts_path(self, number: int) -> Path:
        """The counts of a shard. They are written last, so a shard with counts is complete."""
        return self.folder / ".counts" / f"{self.path(number).name}.json"

    def is_done(self, number: int) -> bool:
        """Whether a shard is complete."""
        try:
            json.loads(self.counts_path(number).read_bytes())
        except (OSError, ValueError):
            return False
        return self.path(number).is_file()

    def write(self, number: int, built: Built) -> None:
        """Write a shard and its counts, each atomically."""
        self.counts_path(number).parent.mkdir(exist_ok=True)
        with atomic_file(self.path(number), durable=True) as part:
            self.form.write(part, built.records)
        write_text(self.counts_path(number), json.dumps(dict(sorted(built.counts.items()))), durable=True)


def run(
    worker: Worker,
    units: Sequence[Record],
    folder: Path,
    stem: str,
    form: ShardForm,
    settings: Record,
    per_shard: int = 64,
    engine: Engine = "local",
    workers: int = 1,
    gpus: float = 0,
    message: Callable[[Counter[str]], str] = lambda counts: "Building",
    in_flight: int = 1,
) -> tuple[list[Path], Counter[str]]:
    """Make the missing shards of a build. After an error the finished shards stay, and the next call continues.

    Args:
        units: JSON records with everything that `worker` needs.
        settings: everything that the records depend on. They are stored in the folder and compared by later calls.
        per_shard: units a shard.
        workers: processes on Ray.
        gpus: of each of these processes.
        message: of the progress bar, from the counts of this call.
        in_flight: threads of the local engine; `worker` must be thread-safe if there are several.

    Returns:
        All shards, and the sum of their counts.

    Raises:
        ValueError: the folder holds a build with other settings, or Ray is not installed; and every error of `worker`.
    """
    total = shard_count(len(units), per_shard)
    shards = Shards(folder, stem, form, total)
    _claim(folder, stem, {"settings": settings, "per_shard": per_shard, "units": digest(units)})
    missing = [number for number in range(total) if not shards.is_done(number)]
    parts: list[Record] = [{"number": n, "units": list(units[n * per_shard : (n + 1) * per_shard])} for n in missing]
    steps = partial(_build_shard, worker, shards)
    built = run_on_ray(steps, parts, workers, gpus) if engine == "ray" and parts else _run_here(steps, parts, in_flight)
    so_far: Counter[str] = Counter()
    images = sum(len(part["units"]) for part in parts)
    for counts in track(built, images, message(so_far), "images", note=lambda: message(so_far)):
        so_far.update(counts)
    clear_leftovers(folder, f"{stem}-", STATE)
    all_counts: Counter[str] = Counter()
    for number in range(total):
        all_counts.update(json.loads(shards.counts_path(number).read_text()))
    return [shards.path(number) for number in range(total)], all_counts


def _build_shard(
    worker: Worker, shards: Shards, part: Record, ordered_map: Callable[..., Iterable[Built]] = map
) -> Iterator[Counter[str]]:
    """Yield the counts of each unit, then write the shard."""
    shard = Built()
    for built in ordered_map(worker.build, part["units"]):
        shard.records += built.records
        shard.counts.update(built.counts)
        yield built.counts
    shards.write(int(part["number"]), shard)


def _run_here(
    steps: Callable[..., Iterator[Counter[str]]], parts: list[Record], in_flight: int
) -> Iterator[Counter[str]]:
    if in_flight == 1:
        for part in parts:
            yield from steps(part)
        return
    share = max(1, torch.get_num_threads() // in_flight)
    # Threads, not processes: they share one model, and its computation releases the GIL.
    with ThreadPoolExecutor(in_flight, initializer=torch.set_num_threads, initargs=(share,)) as pool:
        try:
            for part in parts:
                yield from steps(part, pool.map)
        finally:
            pool.shutdown(cancel_futures=True)


def shard_count(units: int, per_shard: int) -> int:
    """The number of shards; at least 1."""
    return max(1, -(-units // per_shard))


def begun(folder: Path) -> dict[str, Record]:
    """The builds of a folder by stem: `settings`, `per_shard`, and the `digest` of their `units`."""
    file = folder / STATE
    state: dict[str, Record] = json.loads(file.read_text()) if file.is_file() else {}
    return state


def clear_leftovers(folder: Path, *names: str) -> None:
    """Remove temporary files of killed processes for files whose names begin with one of `names`."""
    for place in (folder, folder / ".counts"):
        remove_leftovers(place, *names)


def forget(folder: Path, stem: str) -> None:
    """Remove the shards of a stem, then its state; other builds in the folder stay."""
    pattern = f"{glob.escape(stem)}-[0-9]*-of-*"
    for path in (*folder.glob(f".counts/{pattern}"), *folder.glob(pattern)):
        path.unlink(missing_ok=True)
    state = begun(folder)
    state.pop(stem, None)
    if state:
        write_text(folder / STATE, json.dumps(state, indent=1), durable=True)
        return
    (folder / STATE).unlink(missing_ok=True)
    with suppress(OSError):
        (folder / ".counts").rmdir()


def _claim(folder: Path, stem: str, build: Record) -> None:
    """Store what is built in the folder, or raise ValueError if another build was begun there."""
    folder.mkdir(parents=True, exist_ok=True)
    state = begun(folder)
    build = json.loads(json.dumps(build))
    before = state.get(stem, build)
    if before != build:
        old, new = (one["settings"] | {name: one[name] for name in ("per_shard", "units")} for one in (before, build))
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        raise ValueError(
            f"{folder} holds a build that was begun with other settings ({', '.join(changed)}); "
            "continue with the same settings, or choose another folder"
        )
    write_text(folder / STATE, json.dumps(state | {stem: build}, indent=1), durable=True)


def digest(units: Iterable[Record]) -> str:
    """Sixteen hex digits that identify a list of units."""
    total = hashlib.sha256()
    for unit in units:
        total.update(json.dumps(unit, sort_keys=True).encode())
    return total.hexdigest()[:16]
