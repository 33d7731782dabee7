"""Paths from users."""

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path with `~` replaced by the user's home; unchanged for a user without a home."""
    return Path(os.path.expanduser(path))
