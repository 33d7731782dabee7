"""The weights that a checkpoint's config speaks of besides its own: what must be there for it to be loaded."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from maskselect.backends.checkpoints import shipped_names
from maskselect.backends.config_tree import Node, arguments_of
from maskselect.systems.loading import BESIDE

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WEIGHTS = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl"}
_NO_WEIGHTS = "name"
"""A setting whose words are never weights, though a shipped checkpoint may be called like them."""


@dataclass(frozen=True)
class NamedWeights:
    """Each once, in the order of the config.

    beside: files and folders in the checkpoint's own folder, as paths within it; of a checkpoint its card too.
    shipped: checkpoints that come with this package.  hub: ids of repositories of the hub.
    published: files and folders by a relative path, where whoever loads the checkpoint puts them.
    own: files by a path that means something on this machine alone, and checkpoints of ours outside that folder.
    """

    beside: list[str] = field(default_factory=list)
    shipped: list[str] = field(default_factory=list)
    hub: list[str] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)


def named_weights(config: Any) -> NamedWeights:
    """Those of a card's config. Nothing is read but whether a path is there."""
    found, shipped = NamedWeights(), set(shipped_names())
    for value in dict.fromkeys(_words(config)):
        if value.startswith(BESIDE):
            path = PurePosixPath(value.removeprefix(BESIDE).lstrip("/"))
            found.beside.append(path.as_posix())
            if path.suffix == ".safetensors":
                found.beside.append(path.with_suffix(".json").as_posix())
        elif value in shipped:
            found.shipped.append(value)
        elif PurePosixPath(value).suffix == ".safetensors" or Path(value).is_absolute() or value.startswith("~"):
            found.own.append(value)
        elif PurePosixPath(value).suffix in _WEIGHTS or ("/" in value and Path(value).exists()):
            found.published.append(value)
        elif _HUB_ID.fullmatch(value):
            found.hub.append(value)
    return found


def _words(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in (config if Node.of(config) is None else arguments_of(config)).items():
            if key != _NO_WEIGHTS:
                yield from _words(value)
    elif isinstance(config, list):
        for value in config:
            yield from _words(value)
    elif isinstance(config, str):
        yield config
