"""The further weights that a checkpoint's config names and that loading it requires."""

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
"""A setting that never names weights, although a shipped checkpoint may have the same name."""


@dataclass(frozen=True)
class NamedWeights:
    """Weights by place, without duplicates, in the order of the config.

    Attributes:
        beside: paths of files and folders in the checkpoint's folder; a checkpoint comes with its card.
        shipped: names of checkpoints of this package.
        hub: ids of repositories of the hub.
        published: relative paths where the user of the checkpoint puts published files.
        own: paths that exist only on this machine, and checkpoints outside the folder.
    """

    beside: list[str] = field(default_factory=list)
    shipped: list[str] = field(default_factory=list)
    hub: list[str] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)


def named_weights(config: Any) -> NamedWeights:
    """The weights that a card's config names. Only the existence of paths is checked."""
    weights, shipped = NamedWeights(), set(shipped_names())
    for value in dict.fromkeys(_words(config)):
        if value.startswith(BESIDE):
            path = PurePosixPath(value.removeprefix(BESIDE).lstrip("/"))
            weights.beside.append(path.as_posix())
            if path.suffix == ".safetensors":
                weights.beside.append(path.with_suffix(".json").as_posix())
        elif value in shipped:
            weights.shipped.append(value)
        elif PurePosixPath(value).suffix == ".safetensors" or Path(value).is_absolute() or value.startswith("~"):
            weights.own.append(value)
        elif PurePosixPath(value).suffix in _WEIGHTS or ("/" in value and Path(value).exists()):
            weights.published.append(value)
        elif _HUB_ID.fullmatch(value):
            weights.hub.append(value)
    return weights


def _words(config: Any) -> Iterator[str]:
    """All strings of a config that may name weights."""
    if isinstance(config, dict):
        for key, value in (config if Node.of(config) is None else arguments_of(config)).items():
            if key != _NO_WEIGHTS:
                yield from _words(value)
    elif isinstance(config, list):
        for value in config:
            yield from _words(value)
    elif isinstance(config, str):
        yield config
