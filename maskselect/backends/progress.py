"""Progress bars: the one door to the terminal for work that takes a while."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


def track(
    items: Iterable[Item],
    total: int | None,
    description: str,
    unit: str = "it",
    note: Callable[[], str] | None = None,
) -> Iterator[Item]:
    """Yields `items` with a bar on standard error of done, total, rate and time left; none where that is no terminal.

    total: how many there will be, or None where that is not known.
    note: gives what stands before the bar once an item is done, in place of `description`.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as progress:
        if note is None:
            yield from progress.track(items, total=total, description=description)
            return
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
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
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as progress:
        yield progress.wrap_file(file, size, description=description)
