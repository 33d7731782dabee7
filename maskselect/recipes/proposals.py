"""The proposals of a whole data set in a store: `maskselect propose`.

The folder is a store of `proposers.store`. Beside its shards are `errors.parquet`, which lists the images that could
not be read with the reason (if there are any), and the state of the engine. A resumed run with the same images finishes
the last set of shards; with other images it begins a further set for those without a row.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from maskselect.backends.arrow import pa, pq
from maskselect.ops.atomic import atomic_file
from maskselect.proposers import loading
from maskselect.proposers.proposal_rows import STEM, ProposalRows, failed_row, read_failed, read_keys, shards_of
from maskselect.proposers.store import INDEX, propose_row, proposer_key, write_index
from maskselect.recipes.engine import (
    STATE,
    Built,
    Engine,
    Record,
    Shards,
    begun,
    clear_leftovers,
    digest,
    forget,
    run,
    shard_count,
)
from maskselect.recipes.image_sources import ImageSource
from maskselect.structures.protocols import Proposer

ERRORS = "errors.parquet"
PER_SHARD = 128


@dataclass(frozen=True)
class NamedProposer:
    """A proposer by name or config on a device, see `proposers.loading.load_proposer`. It is picklable."""

    config_or_name: str = "sam"
    device: str = "auto"

    def open(self) -> Proposer:
        """Load the proposer."""
        return loading.load_proposer(self.config_or_name, self.device)

    def identity(self) -> str:
        """Its `cache_key`, on a machine that may lack its device."""
        return loading.identify_proposer(self.config_or_name)


@dataclass(frozen=True)
class Proposed:
    """The result of a run.

    Attributes:
        done: number of images that got a row.
        there: number of images that had a row before.
        masks: mean number of masks of an image in the set of shards that the run finished; 0 if no image was left.
        failed: the reason by key for the images without a row.
    """

    done: int
    there: int
    masks: float
    failed: dict[str, str]


class ProposalWorker:
    """Makes the row of an image, or the reason why there is none.

    Args:
        maker: loads the proposer in each process.
        identity: the `cache_key` that the proposer must have in every process.
        proposer: if it is loaded already; it stays in this process.
    """

    def __init__(
        self, images: ImageSource, maker: NamedProposer, identity: str, proposer: Proposer | None = None
    ) -> None:
        self.images, self.maker, self.identity, self._proposer = images, maker, identity, proposer
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"} | {"_proposer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": Lock()}

    def build(self, unit: Record) -> Built:
        """One row; counts `images`, `masks` and `failed`. Thread-safe: images are read one after another.

        Raises:
            ValueError: the proposer has another key in this process.
        """
        key = unit["key"]
        with self._lock:
            proposer = self._open()
        try:
            with self._lock:
                image = self.images.load(unit)
            row = propose_row(image, proposer, self.identity, key)
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return Built([failed_row(key, reason)], Counter(failed=1))
        return Built([row], Counter(images=1, masks=len(row["scores"])))

    def _open(self) -> Proposer:
        if self._proposer is None:
            proposer = self.maker.open()
            if (key := proposer_key(proposer)) != self.identity:
                raise ValueError(
                    f"the proposer of a worker has the key {key}, that of the run {self.identity}; "
                    "expected the same config and weights on every machine"
                )
            self._proposer = proposer
        return self._proposer


def propose_images(
    images: ImageSource,
    maker: NamedProposer,
    folder: Path,
    resume: bool = False,
    engine: Engine = "local",
    workers: int = 1,
    gpus: float = 0,
    per_shard: int = PER_SHARD,
) -> Proposed:
    """Write the proposals of all images into `folder`, shard by shard. Existing rows are not made again.

    Args:
        resume: continue in a folder that has shards. Failed images are tried again after all others are done.
        engine: "local" or "ray"; the rows do not depend on it.
        workers: threads of the local engine, or processes on Ray.

    Raises:
        ValueError: the folder has shards and `resume` is False, or they are by another proposer.
        FileNotFoundError: images or the proposer do not exist.
    """
    if not resume and (shards := shards_of(folder)):
        raise ValueError(
            f"{folder} holds {len(shards)} shard(s) of proposals; expected a folder without, or --resume to go on in it"
        )
    units = images.units()
    proposer = maker.open() if engine == "local" else None
    identity = maker.identity() if proposer is None else proposer_key(proposer)
    settings = {"proposer": identity}
    stem, left, there = _plan(folder, units, settings, resume)
    if not left:
        _publish(folder, {})
        return Proposed(0, there, 0.0, {})
    worker, form = ProposalWorker(images, maker, identity, proposer), ProposalRows()
    before = len(_keys(_of_stem(folder, stem)))
    in_flight = workers if engine == "local" else 1
    try:
        files, counts = run(
            worker, left, folder, stem, form, settings, per_shard, engine, workers, gpus, _message, in_flight
        )
    except (ValueError, OSError):
        if not _of_stem(folder, stem):  # for example, Ray cannot be reached: leave no state behind
            forget(folder, stem)
        raise
    failed = {key: why for file in files for key, why in read_failed(file).items()} if counts["failed"] else {}
    if counts["images"] == 0:
        forget(folder, stem)
    _publish(folder, failed)
    return Proposed(counts["images"] - before, there, counts["masks"] / max(counts["images"], 1), failed)


def _plan(folder: Path, units: list[Record], settings: Record, resume: bool) -> tuple[str, list[Record], int]:
    """The stem of the shards to make, their units, and how many images have a row already."""
    states = {stem: state for stem, state in begun(folder).items() if stem.startswith(f"{STEM}-")}
    if not resume:
        for stem in states:  # stopped before the first shard
            forget(folder, stem)
        return _stem(0), units, 0
    for state in states.values():
        if state["settings"] != settings:
            raise ValueError(
                f"the proposals in {folder} are by proposer {state['settings'].get('proposer')!r}, not by "
                f"{settings['proposer']!r}; expected the same one, or another folder"
            )
    known = tuple(f"{stem}-" for stem in states)
    unknown = [file.name for file in shards_of(folder) if not file.name.startswith(known)]
    if unknown:
        raise ValueError(
            f"{folder} holds {len(unknown)} shard(s), such as {unknown[0]}, that {STATE} there does not know; "
            f"expected the {STATE} that was written beside them, or another folder"
        )
    last = max(states, key=_number, default=None)
    of_last = set() if last is None else set(_of_stem(folder, last))
    earlier, later = _keys(file for file in shards_of(folder) if file not in of_last), _keys(of_last)
    there = sum(unit["key"] in earlier or unit["key"] in later for unit in units)
    left = [unit for unit in units if unit["key"] not in earlier]
    if last is not None and states[last]["units"] == digest(left):
        shards = Shards(folder, last, ProposalRows(), shard_count(len(left), states[last]["per_shard"]))
        if not all(map(shards.is_done, range(shards.total))):
            return last, left, there
    number = 0 if last is None else _number(last) + 1
    if last is not None and not later:  # every image failed, and the run was killed before `forget`
        forget(folder, last)
        number -= 1
    return _stem(number), [unit for unit in left if unit["key"] not in later], there


def _publish(folder: Path, failed: dict[str, str]) -> None:
    """Write the index and the list of errors. Images that failed in an earlier run and have no row stay listed."""
    path = folder / ERRORS
    if path.is_file():
        table = pq.read_table(path, columns=["key", "reason"])
        failed = dict(zip(*(table.column(name).to_pylist() for name in ("key", "reason")), strict=True)) | failed
    if failed:
        with_rows = _keys(shards_of(folder))
        failed = {key: why for key, why in failed.items() if key not in with_rows}
    if failed:
        schema = pa.schema([("key", pa.string()), ("reason", pa.string())])
        with atomic_file(path) as part:
            pq.write_table(pa.table([list(failed), list(failed.values())], schema), part)
    else:
        path.unlink(missing_ok=True)
    write_index(folder)
    clear_leftovers(folder, f"{STEM}-", ERRORS, INDEX, STATE)


def _message(counts: Counter[str]) -> str:
    return f"Proposing, {counts['masks'] / max(counts['images'], 1):.1f} masks an image"


def _keys(files: Iterable[Path]) -> set[str]:
    return {key for file in files for key in read_keys(file)}


def _of_stem(folder: Path, stem: str) -> list[Path]:
    return [file for file in shards_of(folder) if file.name.startswith(f"{stem}-")]


def _stem(number: int) -> str:
    return f"{STEM}-{number:02d}"


def _number(stem: str) -> int:
    return int(stem.removeprefix(f"{STEM}-"))
