"""Paths as users write them."""

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path with `~` for the user's home; for a user without a home it stays as it is."""
    return Path(os.path.expanduser(path))
