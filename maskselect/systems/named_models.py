"""Named models of public weights: configs in `configs/hub/`, whose parts are repositories of the Hugging Face hub.

A config has a `system` (a config tree) and its `threshold`. Each string `hf://org/name` or `hf://org/name@revision` in
the tree stands for a folder with the files of that repository. They are downloaded at the first use, after a message
that states size, licence and place; afterwards no network is needed. A revision that is not given is the main branch at
the first download: cached files are used as they are.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from maskselect.backends.building import build, find_class, on_device
from maskselect.backends.config_tree import Node, rebuilt, tree, walk
from maskselect.backends.configs import SHIPPED, read_yaml
from maskselect.backends.hub_cache import cached, offline, transformers_model
from maskselect.ops.paths import expanded
from maskselect.structures.protocols import System
from maskselect.systems.loading import in_float32

FOLDER = SHIPPED / "hub"
_LINK = "hf://"
_SMALL = ("*.json", "*.txt", "*.model")
_WEIGHTS = ("*.safetensors",)
_INNER = ("*/*",)


@dataclass(frozen=True)
class NamedModel:
    """A config of public weights.

    Attributes:
        name: its name.
        system: the config tree of the system.
        threshold: selection threshold.
    """

    name: str
    system: Mapping[str, Any]
    threshold: float

    @property
    def links(self) -> list[str]:
        """The repositories that the config names, as `hf://org/name` or `hf://org/name@revision`, each once."""
        found: dict[str, None] = {}
        for node in walk(self.system):
            texts = (value for value in node.arguments.values() if isinstance(value, str))
            found.update(dict.fromkeys(text for text in texts if text.startswith(_LINK)))
        return list(found)


def names() -> list[str]:
    """The names of the shipped configs."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def is_named(name_or_path: str | Path) -> bool:
    """Whether a model is a config of public weights: a shipped name, or a YAML file."""
    return Path(name_or_path).suffix in (".yaml", ".yml") or (FOLDER / f"{name_or_path}.yaml").is_file()


def read(name_or_path: str | Path) -> NamedModel:
    """Read a config.

    Raises:
        FileNotFoundError: there is no such name or file.
        ValueError: it has no system, or a threshold outside of [0, 1].
    """
    shipped = FOLDER / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else expanded(name_or_path)
    if not path.is_file():
        raise FileNotFoundError(
            f"model config {str(name_or_path)!r} does not exist; expected a YAML file or one of {', '.join(names())}"
        )
    config = read_yaml(path, "model config")
    threshold = config.get("threshold", 0.5)
    if Node.of(config.get("system")) is None:
        raise ValueError(f"model config {path} has no system; expected `system` with class_path and init_args")
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"model config {path} has the threshold {threshold!r}; expected a number in [0, 1]")
    return NamedModel(path.stem, config["system"], float(threshold))


def local_folder(link: str) -> Path | None:
    """The folder of a repository on this machine, if all of its files are there; no network is used.

    Weights are downloaded last, so complete weights mean that everything is complete.
    """
    name, _, revision = link.removeprefix(_LINK).partition("@")
    config = cached(name, "config.json", revision or None)
    return None if config is None or transformers_model(str(config.parent), "", "") else config.parent


def fetch(model: NamedModel) -> dict[str, Path]:
    """The folder of each link. Missing ones are downloaded, after a message on standard error.

    Raises:
        FileNotFoundError: files are missing and cannot be downloaded; with the reason.
    """
    folders = {link: local_folder(link) for link in model.links}
    missing = [link for link, folder in folders.items() if folder is None]
    if missing:
        from maskselect.backends import hub  # noqa: PLC0415  the hub's client is slow to import

        if offline():
            raise FileNotFoundError(
                f"model {model.name} needs {', '.join(missing)}, which this machine does not hold, and HF_HUB_OFFLINE "
                f"is set; expected them in the hub's cache: maskselect download {model.name}"
            )
        repositories = {link: hub.Repository.parse(link) for link in missing}
        try:
            listings = {
                link: hub.describe(repository, (*_SMALL, *_WEIGHTS), _INNER)
                for link, repository in repositories.items()
            }
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; the model needs a network once: maskselect download {model.name}, here or on another "
                "machine whose cache of the hub you copy"
            ) from error
        print(_announcement(model.name, listings), file=sys.stderr, flush=True)
        for link, repository in repositories.items():
            small = hub.fetch(repository, _SMALL, _INNER)
            folders[link] = folder = hub.fetch(replace(repository, revision=small.name), _WEIGHTS, _INNER)
            if needs := transformers_model(str(folder), "", ""):
                raise FileNotFoundError(f"{link}: {needs[0].what.partition(': ')[2]}; expected a model of transformers")
    return {link: folder for link, folder in folders.items() if folder is not None}


def _announcement(name: str, listings: Mapping[str, Any]) -> str:
    """What will be downloaded: the repositories, their sizes and licences, and the place."""
    from huggingface_hub import constants  # noqa: PLC0415  slow to import

    total = sum(listing.size for listing in listings.values())
    many = "1 public model" if len(listings) == 1 else f"{len(listings)} public models"
    lines = [
        f"{name}: downloading {many}, {size_of(total)} together, to {constants.HF_HUB_CACHE} (HF_HOME changes the "
        "place); afterwards no network is needed"
    ]
    for link, listing in listings.items():
        repository = link.removeprefix(_LINK).partition("@")[0]
        licence = listing.licence or "not stated"
        lines.append(f"  {repository}, {size_of(listing.size)}, licence {licence}, commit {listing.commit[:12]}")
    return "\n".join(lines)


def size_of(count: int) -> str:
    """Bytes in decimal units, as download sizes are given."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


@dataclass(frozen=True)
class Loaded:
    """A built model of public weights.

    Attributes:
        model: its config.
        system: the system on its device.
        parts: the repositories with the commits in use, as `hf://org/name@commit`.
        fingerprint: digest of config and commits; "" if the config names other weights, which could change.
    """

    model: NamedModel
    system: System
    parts: tuple[str, ...]
    fingerprint: str


def load(name_or_path: str | Path, device: torch.device | str) -> Loaded:
    """Read a config, download what is missing, and build the system.

    Raises:
        FileNotFoundError: there is no such config, or files cannot be downloaded.
        ValueError: the config is invalid, or a part is of another kind.
    """
    model = read(name_or_path)
    folders = fetch(model)

    def leaf(value: Any) -> Any:
        return str(folders[value]) if isinstance(value, str) and value in folders else value

    config = rebuilt(dict(model.system), lambda node: tree(node.path, node.arguments), leaf)
    try:
        with in_float32():
            system = build(placed(config, torch.device(device)))
    except TypeError as error:
        raise ValueError(f"model config {name_or_path} does not fit its classes: {error}") from error
    if not isinstance(system, System):
        raise ValueError(f"model config {name_or_path} describes a {type(system).__name__}; expected a system")
    cast(nn.Module, system).to(device)
    parts = tuple(f"{link.partition('@')[0]}@{folders[link].name}" for link in model.links)
    text = json.dumps([model.system, model.threshold, parts], sort_keys=True)
    whole = bool(parts) and not _names_local_weights(model)
    return Loaded(model, system, parts, hashlib.sha256(text.encode()).hexdigest() if whole else "")


def placed(system: Mapping[str, Any], device: torch.device) -> Any:
    """A config tree on a device. On the CPU all parts compute in float32.

    A CPU without instructions for half precision takes a hundred times as long in it.
    """

    def place(node: Node) -> Any:
        takes = "dtype" in inspect.signature(find_class(node.path)).parameters
        return tree(node.path, {**node.arguments, "dtype": "float32"} if takes else node.arguments)

    config = on_device(system, str(device))
    return rebuilt(config, place) if device.type == "cpu" else config


def _names_local_weights(model: NamedModel) -> bool:
    """Whether a part is a path of this machine."""
    values = (value for node in walk(model.system) for value in node.arguments.values())
    return any(isinstance(value, str) and not value.startswith(_LINK) and Path(value).exists() for value in values)
