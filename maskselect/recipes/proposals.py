"""Candidates of a whole data set, made once and stored: `maskselect propose`.

The folder is one of `proposers.store`, with `errors.parquet` beside the shards: the images that could not be read, each
with the reason, if there are any; and what the engine keeps. A run that goes on in such a folder finishes what was
begun when the images are the same; otherwise it begins a further set of shards for those that have no row yet.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

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


class ProposerMaker(Protocol):
    """Opens a proposer in the process that needs it. It must be picklable."""

    def open(self) -> Proposer:
        """The proposer. Raises FileNotFoundError or ValueError when it cannot be had."""
        ...

    def identity(self) -> str:
        """Its `cache_key`, on a machine that need not have its device.

        Raises FileNotFoundError or ValueError when what it is made of is not there.
        """
        ...


@dataclass(frozen=True)
class NamedProposer:
    """A proposer by name or config on a device, see `proposers.loading.load_proposer`."""

    config_or_name: str = "sam"
    device: str = "auto"

    def open(self) -> Proposer:
        """Loaded anew with each call."""
        return loading.load_proposer(self.config_or_name, self.device)

    def identity(self) -> str:
        """Of the proposer made on the CPU."""
        return loading.identify_proposer(self.config_or_name)


@dataclass(frozen=True)
class Proposed:
    """What a run did.

    done: images that it gave candidates.  there: images that had them before.
    masks: an image on average, of the set of shards that it finished; 0 where nothing was left to do.
    failed: keys of the images that have none, with the reason.
    """

    done: int
    there: int
    masks: float
    failed: dict[str, str]


class ProposalWorker:
    """One image to one row; an image that cannot be read, or proposed for, to the reason.

    identity: the `cache_key` that the proposer must have, wherever it is opened.
    proposer: if it is open already; it stays in this process.
    """

    def __init__(
        self, images: ImageSource, maker: ProposerMaker, identity: str, proposer: Proposer | None = None
    ) -> None:
        self.images, self.maker, self.identity, self._proposer = images, maker, identity, proposer
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"} | {"_proposer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": Lock()}

    def build(self, unit: Record) -> Built:
        """Counts `images`, `masks` and `failed`. Raises ValueError when the proposer is another one here.

        Threads may call it: images are read one after another, and proposed for side by side.
        """
        key = unit["key"]
        with self._lock:
            proposer = self._open()
        try:
            with self._lock:
                image = self.images.load(unit)
            row = propose_row(image, proposer, self.identity, key)
        except (ValueError, OSError) as error:
            return Built([failed_row(key, _one_line(error))], Counter(failed=1))
        return Built([row], Counter(images=1, masks=len(row["scores"])))

    def _open(self) -> Proposer:
        if self._proposer is None:
            proposer = self.maker.open()
            if (found := proposer_key(proposer)) != self.identity:
                raise ValueError(
                    f"the proposer of a worker has the key {found}, that of the run {self.identity}; "
                    "expected the same config and weights on every machine"
                )
            self._proposer = proposer
        return self._proposer


def propose_images(
    images: ImageSource,
    maker: ProposerMaker,
    folder: Path,
    resume: bool = False,
    engine: Engine = "local",
    workers: int = 1,
    gpus: float = 0,
    per_shard: int = PER_SHARD,
) -> Proposed:
    """Candidates of all images into `folder`, shard by shard; what is written is not made again.

    resume: go on in a folder that has shards. Images that failed are tried again once the others are done.
    engine, gpus, per_shard: see `engine.run`. The rows do not depend on them.
    workers: Ray's processes, or, with the local engine, images in flight at a time.

    Raises ValueError or FileNotFoundError when the images or the proposer are not there, when the folder has shards and
    `resume` is not asked for, or when they were made by another proposer.
    """
    if not resume and (shards := shards_of(folder)):
        raise ValueError(
            f"{folder} holds {len(shards)} shard(s) of proposals; expected a folder without, or --resume to go on in it"
        )
    units = images.units()
    proposer = maker.open() if engine == "local" else None
    identity = maker.identity() if proposer is None else proposer_key(proposer)
    stem, left, there = _plan(folder, units, {"proposer": identity}, resume)
    if not left:
        _publish(folder, {})
        return Proposed(0, there, 0.0, {})
    worker, form = ProposalWorker(images, maker, identity, proposer), ProposalRows()
    before = sum(map(len, map(read_keys, _of_stem(folder, stem))))
    settings = {"proposer": identity}
    try:
        at_once = workers if engine == "local" else 1
        files, counts = run(
            worker, left, folder, stem, form, settings, per_shard, engine, workers, gpus, _told, at_once
        )
    except (ValueError, OSError):
        if not _of_stem(folder, stem):  # as where Ray cannot be reached: nothing half-begun stays
            forget(folder, stem)
        raise
    failed = {key: why for file in files for key, why in read_failed(file).items()} if counts["failed"] else {}
    if counts["images"] == 0:
        forget(folder, stem)
    _publish(folder, failed)
    return Proposed(counts["images"] - before, there, counts["masks"] / max(counts["images"], 1), failed)


def _plan(folder: Path, units: list[Record], settings: Record, resume: bool) -> tuple[str, list[Record], int]:
    """The stem of the shards to be made, the units for them, and how many images have a row already."""
    states = {stem: state for stem, state in begun(folder).items() if stem.startswith(f"{STEM}-")}
    if not resume:
        for stem in states:  # begun, and stopped before there was a shard
            forget(folder, stem)
        return _stem(0), units, 0
    for state in states.values():
        if state["settings"] != settings:
            raise ValueError(
                f"the proposals in {folder} are by proposer {state['settings'].get('proposer')!r}, not by "
                f"{settings['proposer']!r}; expected the same one, or another folder"
            )
    begun_here = tuple(f"{stem}-" for stem in states)
    strangers = [file.name for file in shards_of(folder) if not file.name.startswith(begun_here)]
    if strangers:
        raise ValueError(
            f"{folder} holds {len(strangers)} shard(s), such as {strangers[0]}, that {STATE} there does not know; "
            f"expected the {STATE} that was written beside them, or another folder"
        )
    last = max(states, key=_number, default=None)
    of_last = set() if last is None else set(_of_stem(folder, last))
    earlier, later = _keys(file for file in shards_of(folder) if file not in of_last), _keys(of_last)
    with_rows = earlier | later
    there = sum(unit["key"] in with_rows for unit in units)
    left = [unit for unit in units if unit["key"] not in earlier]
    if last is not None and states[last]["units"] == digest(left) and not _is_whole(folder, last, states[last], left):
        return last, left, there
    number = 0 if last is None else _number(last) + 1
    if last is not None and not later:  # it came to nothing, and was killed before it could be taken away
        forget(folder, last)
        number -= 1
    return _stem(number), [unit for unit in left if unit["key"] not in with_rows], there


def _is_whole(folder: Path, stem: str, state: Record, units: list[Record]) -> bool:
    shards = Shards(folder, stem, ProposalRows(), shard_count(len(units), state["per_shard"]))
    return all(shards.is_done(number) for number in range(shards.total))


def _publish(folder: Path, failed: dict[str, str]) -> None:
    """Index and list of errors as they are now."""
    if failed or (folder / ERRORS).is_file():  # an image that failed before and has no row yet is still one that failed
        with_rows = _keys(shards_of(folder))
        failed = {key: why for key, why in (_listed(folder) | failed).items() if key not in with_rows}
    if failed:
        schema = pa.schema([("key", pa.string()), ("reason", pa.string())])
        table = pa.table([list(failed), list(failed.values())], schema)
        with atomic_file(folder / ERRORS) as part:
            pq.write_table(table, part)
    else:
        (folder / ERRORS).unlink(missing_ok=True)
    write_index(folder)
    clear_leftovers(folder, f"{STEM}-", ERRORS, INDEX, STATE)


def _listed(folder: Path) -> dict[str, str]:
    """The images that are listed as failed, with the reason."""
    if not (folder / ERRORS).is_file():
        return {}
    columns = pq.read_table(folder / ERRORS, columns=["key", "reason"])
    return dict(zip(columns.column("key").to_pylist(), columns.column("reason").to_pylist(), strict=True))


def _told(counts: Counter[str]) -> str:
    return f"Proposing, {counts['masks'] / max(counts['images'], 1):.1f} masks an image"


def _keys(files: Iterable[Path]) -> set[str]:
    return {key for file in files for key in read_keys(file)}


def _of_stem(folder: Path, stem: str) -> list[Path]:
    return [file for file in shards_of(folder) if file.name.startswith(f"{stem}-")]


def _stem(number: int) -> str:
    return f"{STEM}-{number:02d}"


def _number(stem: str) -> int:
    return int(stem.removeprefix(f"{STEM}-"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
