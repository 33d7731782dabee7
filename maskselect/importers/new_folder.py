"""A folder that an importer makes: there whole, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def refuse_filled(destination: Path) -> None:
    """Raises ValueError when something is at `destination` that is not an empty folder."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination} is there already; expected a folder that is not, or is empty")


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A folder beside `destination` to write into; it takes that place when nothing was raised, else it goes away."""
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if destination.exists():
            destination.rmdir()
        temporary.replace(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
