"""Git LFS pointers: small texts that lie in a clone in place of large files, until `git lfs pull` fetches those."""

from pathlib import Path

_START = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path, name: str) -> None:
    """Raises ValueError when a file is a Git LFS pointer. name: what the message calls the file."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_START))
    except OSError:  # whoever opens the file says it better
        return
    if head == _START:
        raise ValueError(f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` where it lies")
