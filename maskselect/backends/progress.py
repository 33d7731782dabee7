"""Progress bars: the one door to the terminal for work that takes a while."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import BinaryIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

Item = TypeVar("Item")


class _Rate(ProgressColumn):
    """Items a second, in the item's own unit."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate over the last moments, or over the whole run once it is finished."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {self._unit}/s")


class _Mean:
    """Items a second from the start up to the last one that was done.

    Rich looks at the last half minute. Where many items are told of at once, as when a whole shard comes back from
    another process, that gives thousands a second and then nothing.
    """

    def __init__(self) -> None:
        self._start, self._items, self._seconds = monotonic(), 0, 0.0

    def step(self) -> None:
        """One more is done."""
        self._items, self._seconds = self._items + 1, monotonic() - self._start

    @property
    def speed(self) -> float | None:
        """None before the first one."""
        return self._items / self._seconds if self._seconds > 0 else None


class _MeanRate(ProgressColumn):
    """Items a second, and the time left at that pace."""

    def __init__(self, mean: _Mean, unit: str) -> None:
        super().__init__()
        self._mean, self._unit = mean, unit

    def render(self, task: Task) -> Text:
        """Nothing before the first item, and no time left where it is not known how many there are."""
        speed = self._mean.speed
        if speed is None:
            return Text("")
        left = "" if task.remaining is None else f" {timedelta(seconds=round(task.remaining / speed))}"
        return Text(f"{speed:.1f} {self._unit}/s{left}")


def _bar(*columns: ProgressColumn) -> Progress:
    """A bar on standard error; nothing, not even an empty line, where that is no terminal."""
    silent = not sys.stderr.isatty()
    return Progress(*columns, console=Console(file=sys.stderr, quiet=silent), disable=silent)


def track(
    items: Iterable[Item],
    total: int | None,
    description: str,
    unit: str = "it",
    note: Callable[[], str] | None = None,
) -> Iterator[Item]:
    """Yields `items` with a bar on standard error of done, total, rate and time left; none where that is no terminal.

    total: how many there will be, or None where that is not known.
    note: gives what stands before the bar once an item is done, in place of `description`. Such work may come in
        bursts: its rate is that of the whole run, otherwise it is that of the last moments.
    """
    mean = _Mean()
    pace = (_Rate(unit), TimeRemainingColumn()) if note is None else (_MeanRate(mean, unit),)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *pace)
    with _bar(*columns) as progress:
        if note is None:
            yield from progress.track(items, total=total, description=description)
            return
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            mean.step()
            progress.update(task, advance=1, description=note())


@contextmanager
def reading(file: BinaryIO, size: int, description: str) -> Iterator[BinaryIO]:
    """The file, with a bar of the bytes read, of `size`; no bar where standard error is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with _bar(*columns) as progress:
        yield progress.wrap_file(file, size, description=description)
