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
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

Item = TypeVar("Item")

_shown: dict[str, Progress] = {}  # "bar": that of the outermost `track`


class _Meter:
    """The mean rate of a bar's items, from the start to the last finished item."""

    def __init__(self, unit: str) -> None:
        self.unit, self.start, self.items, self.seconds = unit, monotonic(), 0, 0.0

    def step(self) -> None:
        """Count one item."""
        self.items, self.seconds = self.items + 1, monotonic() - self.start


class _MeanRate(ProgressColumn):
    """Mean items per second from the start to the last finished item, and the remaining time at this rate.

    Rich's own rate covers the last half minute. For items that arrive in bursts, such as whole shards of another
    process, it alternates between thousands per second and nothing.
    """

    def render(self, task: Task) -> Text:
        """The rate, after the first item, and the remaining time, if the total is known."""
        meter: _Meter = task.fields["meter"]
        if not meter.seconds:
            return Text("")
        rate = meter.items / meter.seconds
        left = "" if task.remaining is None else f" {timedelta(seconds=round(task.remaining / rate))}"
        return Text(f"{rate:.1f} {meter.unit}/s{left}")


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

    A `track` within another one adds a line below it.

    Args:
        items: any iterable.
        total: number of items; None if unknown.
        description: text before the bar.
        unit: unit of the rate.
        note: called after each item; its result replaces `description`.
    """
    meter = _Meter(unit)
    with _line(description, total, meter) as (progress, task):
        for item in items:
            yield item
            meter.step()
            progress.update(task, advance=1, description=note() if note else None)


@contextmanager
def _line(description: str, total: int | None, meter: _Meter) -> Iterator[tuple[Progress, TaskID]]:
    """A line with a bar. A line within another one is below it, and is removed when it is complete."""
    if (outer := _shown.get("bar")) is not None:
        task = outer.add_task(description, total=total, meter=meter)
        try:
            yield outer, task
        finally:
            outer.remove_task(task)
        return
    with _bar(MofNCompleteColumn(), _MeanRate()) as progress:
        _shown["bar"] = progress
        try:
            yield progress, progress.add_task(description, total=total, meter=meter)
        finally:
            _shown.pop("bar", None)


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
