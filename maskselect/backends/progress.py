"""Progress bars on standard error."""

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


class _MeanRate(ProgressColumn):
    """Mean items per second from the start to the last finished item, and the remaining time at this rate.

    Rich's own rate covers the last half minute. For items that arrive in bursts, such as whole shards of another
    process, it alternates between thousands per second and nothing.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit, self._start, self._items, self._seconds = unit, monotonic(), 0, 0.0

    def step(self) -> None:
        """Count one item."""
        self._items, self._seconds = self._items + 1, monotonic() - self._start

    def render(self, task: Task) -> Text:
        """The rate, after the first item, and the remaining time, if the total is known."""
        if not self._seconds:
            return Text("")
        rate = self._items / self._seconds
        left = "" if task.remaining is None else f" {timedelta(seconds=round(task.remaining / rate))}"
        return Text(f"{rate:.1f} {self._unit}/s{left}")


def _bar(*columns: ProgressColumn) -> Progress:
    """A bar on standard error; no output at all if that is not a terminal."""
    silent = not sys.stderr.isatty()
    console = Console(file=sys.stderr, quiet=silent)
    return Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=console, disable=silent)


def track(
    items: Iterable[Item],
    total: int | None,
    description: str,
    unit: str = "it",
    note: Callable[[], str] | None = None,
) -> Iterator[Item]:
    """Yield `items` with a progress bar; without one if standard error is not a terminal.

    Args:
        items: any iterable.
        total: number of items; None if unknown.
        description: text before the bar.
        unit: unit of the rate.
        note: called after each item; its result replaces `description`.
    """
    rate = _MeanRate(unit)
    with _bar(MofNCompleteColumn(), rate) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            rate.step()
            progress.update(task, advance=1, description=note() if note else None)


@contextmanager
def reading(file: BinaryIO, size: int, description: str) -> Iterator[BinaryIO]:
    """A file with a progress bar of the bytes read; without one if standard error is not a terminal.

    Args:
        file: opened for reading.
        size: number of bytes.
        description: text before the bar.
    """
    with _bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as progress:
        yield progress.wrap_file(file, size, description=description)
