"""Runs a builder's units of work shard by shard, in this process or on Ray Data, and goes on where it stopped.

A shard is a fixed run of units and becomes one file, written whole or not at all. What a unit gives must depend on the
unit alone, so that the files are equal whoever made them, in whatever order.
"""

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from maskselect.backends.progress import track
from maskselect.ops.atomic import atomic_file, remove_leftovers, write_text
from maskselect.recipes.ray_jobs import run_on_ray

Record = dict[str, Any]
"""Plain containers, texts and numbers, such as JSON holds."""
Engine = Literal["local", "ray"]
STATE = "build.json"


@dataclass
class Built:
    """What came of a unit: its records, and how often what happened on the way (kept, rejected and why)."""

    records: list[Record] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Worker(Protocol):
    """Makes records. It must be picklable, and open files, models and connections when they are first needed."""

    def build(self, unit: Record) -> Built:
        """The records of one unit. Raises ValueError or OSError when it cannot be done; the build then stops."""
        ...


class ShardForm(Protocol):
    """How the records of a shard are stored. It must be picklable."""

    suffix: str

    def write(self, path: Path, records: list[Record]) -> None:
        """One file."""
        ...


class JsonLines:
    """A record a line."""

    suffix = "jsonl"

    def write(self, path: Path, records: list[Record]) -> None:
        """One file."""
        path.write_text("".join(json.dumps(record) + "\n" for record in records))

    @staticmethod
    def read(path: Path) -> list[Record]:
        """The records of a shard that was written so."""
        return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class Shards:
    """Where the shards of a build go.

    folder: theirs.  stem: of their names, `{stem}-00000-of-00012.{suffix}`.
    """

    folder: Path
    stem: str
    form: ShardForm
    total: int

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{self.stem}-{number:05d}-of-{self.total:05d}.{self.form.suffix}"

    def counts_path(self, number: int) -> Path:
        """What was counted while it was made. It is written last: a shard that has it is done."""
        return self.folder / ".counts" / f"{self.path(number).name}.json"

    def is_done(self, number: int) -> bool:
        """Whether it need not be made again."""
        try:
            json.loads(self.counts_path(number).read_bytes())
        except (OSError, ValueError):
            return False
        return self.path(number).is_file()

    def write(self, number: int, built: Built) -> None:
        """A shard and its counts, each whole or not at all."""
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
    told: Callable[[Counter[str]], str] = lambda counts: "Building",
    in_flight: int = 1,
) -> tuple[list[Path], Counter[str]]:
    """Makes the shards that are not there yet, and gives all of them with everything that was counted.

    units: plain records, each with all that `worker` needs to know.
    settings: everything that the result depends on. They are kept in the folder: a folder begun with others is refused.
    per_shard: units a file.  workers: processes, with Ray.  gpus: that each of them takes for itself.
    told: what the progress bar says, from what was counted so far in this call.
    in_flight: units at a time in this process, by threads; `worker` must allow it.

    Raises ValueError when the folder holds another build or Ray is not installed, and whatever `worker` raises; what
    was done until then stays, and the next call goes on.
    """
    total = shard_count(len(units), per_shard)
    shards = Shards(folder, stem, form, total)
    _claim(folder, stem, {"settings": settings, "per_shard": per_shard, "units": digest(units)})
    left = [number for number in range(total) if not shards.is_done(number)]
    job = _Job(worker, shards)
    parts: list[Record] = [{"number": n, "units": list(units[n * per_shard : (n + 1) * per_shard])} for n in left]
    made = run_on_ray(job.steps, parts, workers, gpus) if engine == "ray" and parts else _here(job, parts, in_flight)
    seen: Counter[str] = Counter()
    images = sum(len(part["units"]) for part in parts)
    for counted in track(made, images, told(seen), "images", note=lambda: told(seen)):
        seen.update(counted)
    clear_leftovers(folder, f"{stem}-", STATE)
    counts: Counter[str] = Counter()
    for number in range(total):
        counts.update(json.loads(shards.counts_path(number).read_text()))
    return [shards.path(number) for number in range(total)], counts


class _Job:
    """One shard."""

    def __init__(self, worker: Worker, shards: Shards) -> None:
        self.worker, self.shards = worker, shards

    def steps(self, part: Record, each: Callable[..., Iterable[Built]] = map) -> Iterator[Counter[str]]:
        """Stops after each unit, with what was counted; the shard is written behind the last.

        each: `map`, or something like it that keeps the order.
        """
        whole = Built()
        for built in each(self.worker.build, part["units"]):
            whole.records += built.records
            whole.counts.update(built.counts)
            yield built.counts
        self.shards.write(int(part["number"]), whole)


def _here(job: _Job, parts: list[Record], in_flight: int) -> Iterator[Counter[str]]:
    if in_flight == 1:
        for part in parts:
            yield from job.steps(part)
        return
    share = max(1, torch.get_num_threads() // in_flight)
    # Threads and not processes: they share one model, and what takes long lets go of Python's lock.
    with ThreadPoolExecutor(in_flight, initializer=torch.set_num_threads, initargs=(share,)) as pool:
        try:
            for part in parts:
                yield from job.steps(part, pool.map)
        finally:
            pool.shutdown(cancel_futures=True)


def shard_count(units: int, per_shard: int) -> int:
    """Shards that so many units make: one at least."""
    return max(1, -(-units // per_shard))


def begun(folder: Path) -> dict[str, Record]:
    """What was begun in a folder: for each stem its `settings`, `per_shard`, and `units` as `digest` tells them."""
    file = folder / STATE
    found: dict[str, Record] = json.loads(file.read_text()) if file.is_file() else {}
    return found


def clear_leftovers(folder: Path, *names: str) -> None:
    """Takes away what writers left that were killed in the middle of files whose names begin so."""
    for place in (folder, folder / ".counts"):
        remove_leftovers(place, *names)


def forget(folder: Path, stem: str) -> None:
    """Takes away the shards of a stem, and last what is kept of its build; other builds in the folder stay."""
    name = f"{glob.escape(stem)}-[0-9]*-of-*"
    for path in (*folder.glob(f".counts/{name}"), *folder.glob(name)):
        path.unlink(missing_ok=True)
    state = {other: kept for other, kept in begun(folder).items() if other != stem}
    if state:
        write_text(folder / STATE, json.dumps(state, indent=1), durable=True)
        return
    (folder / STATE).unlink(missing_ok=True)
    with suppress(OSError):
        (folder / ".counts").rmdir()


def _claim(folder: Path, stem: str, wanted: Record) -> None:
    """Keeps what is built in the folder, or refuses one that was begun otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    state = begun(folder)
    wanted = json.loads(json.dumps(wanted))
    if state.get(stem, wanted) != wanted:
        changed = sorted(_changed(state[stem], wanted))
        raise ValueError(
            f"{folder} holds a build that was begun with other settings ({', '.join(changed)}); "
            "go on with the same ones, or choose another folder"
        )
    write_text(folder / STATE, json.dumps(state | {stem: wanted}, indent=1), durable=True)


def _changed(before: Record, now: Record) -> Iterator[str]:
    old, new = before["settings"], now["settings"]
    yield from (name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    yield from (name for name in ("per_shard", "units") if before[name] != now[name])


def digest(units: Iterable[Record]) -> str:
    """Sixteen hex digits that name a list of units."""
    whole = hashlib.sha256()
    for unit in units:
        whole.update(json.dumps(unit, sort_keys=True).encode())
    return whole.hexdigest()[:16]
