"""Folders for files that can be created again."""

import os
from pathlib import Path

from maskselect.ops.paths import expanded

_CACHE_HOME = "XDG_CACHE_HOME"


def cache_folder() -> Path | None:
    """The user's cache folder, `maskselect` in $XDG_CACHE_HOME or ~/.cache; it need not exist.

    An empty or relative XDG_CACHE_HOME is ignored, as the XDG base directory specification demands. None for a user
    without a home, such as a numeric user in a container.
    """
    cache_home = os.environ.get(_CACHE_HOME, "")
    if os.path.isabs(cache_home):
        return Path(cache_home) / "maskselect"
    home = expanded("~")
    return home / ".cache" / "maskselect" if home.is_absolute() else None


def places_beside(file: Path, suffix: str, digest: str) -> list[Path]:
    """Possible paths for a file that is derived from `file`, in order of preference.

    The only path is in the folder of the environment variable MASKSELECT_INDEX, if it is set. Otherwise the paths are
    beside `file` and in the user's cache. Outside the folder of `file`, `digest` distinguishes files of one name.
    """
    unique = f"{file.name}.{digest}{suffix}"
    if folder := os.environ.get("MASKSELECT_INDEX"):
        return [Path(folder) / unique]
    cache = cache_folder()
    beside = file.with_name(f"{file.name}{suffix}")
    return [beside] if cache is None else [beside, cache / "index" / unique]


def ignore_unusable_cache_home() -> None:
    """Remove XDG_CACHE_HOME from the environment if it is empty or relative.

    Otherwise libraries such as huggingface_hub and torch create folders in the working directory.
    """
    if _CACHE_HOME in os.environ and not os.path.isabs(os.environ[_CACHE_HOME]):
        del os.environ[_CACHE_HOME]
