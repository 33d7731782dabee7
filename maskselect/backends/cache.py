"""Where things are kept that can be made again, and what `~` means."""

import os
from pathlib import Path

from maskselect.ops.paths import expanded

_CACHE_HOME = "XDG_CACHE_HOME"


def cache_folder() -> Path | None:
    """The user's folder for what can be made again, `maskselect` in $XDG_CACHE_HOME or ~/.cache.

    An XDG_CACHE_HOME that is empty or relative counts as none, as the XDG base directory specification says. The folder
    need not exist. None for a user without a home, such as a numeric user of a container.
    """
    told = os.environ.get(_CACHE_HOME, "")
    if os.path.isabs(told):
        return Path(told) / "maskselect"
    home = expanded("~")
    return home / ".cache" / "maskselect" if home.is_absolute() else None


def places_beside(file: Path, suffix: str, digest: str) -> list[Path]:
    """Where something may be kept that was made of a file or folder, the first choice first.

    The folder that the environment variable MASKSELECT_INDEX names, and no other where it is set; otherwise beside
    `file`, then the user's cache, where `digest` tells files of one name apart.
    """
    apart = f"{file.name}.{digest}{suffix}"
    if chosen := os.environ.get("MASKSELECT_INDEX"):
        return [Path(chosen) / apart]
    cache = cache_folder()
    beside = file.with_name(f"{file.name}{suffix}")
    return [beside] if cache is None else [beside, cache / "index" / apart]


def ignore_unusable_cache_home() -> None:
    """Take XDG_CACHE_HOME out of the environment when it is empty or relative.

    Libraries such as huggingface_hub and torch would make folders in the working directory.
    """
    if _CACHE_HOME in os.environ and not os.path.isabs(os.environ[_CACHE_HOME]):
        del os.environ[_CACHE_HOME]
