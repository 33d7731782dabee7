"""The config and the card of a released system: what its importers share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskselect.backends.config_tree import Node, arguments_of, changed, path_of
from maskselect.systems.loading import BESIDE

THRESHOLD = 0.5
"""Selection threshold of a release: IoP in LLM-Seg's validators; not published for RAS."""


def system_task(
    config: Mapping[str, Any], system: type, parts: tuple[str, ...] = ("lmm", "encoders")
) -> dict[str, Any]:
    """The config tree of the system in a training config.

    Args:
        config: the training config.
        system: class of the system.
        parts: arguments that it must have.

    Raises:
        ValueError: if there is none of the class `system`.
    """
    task: Any = (config.get("model") or {}).get("task")
    node = Node.of(task)
    if node is None or not set(parts) <= node.arguments.keys():
        raise ValueError(f"the config has no model.task with {' and '.join(parts)}")
    if node.path != path_of(system):
        raise ValueError(f"the config's task is {node.path!r}; expected {path_of(system)}")
    return dict(task)


def release_card(
    system: str,
    name: str,
    config: Mapping[str, Any],
    source: Path,
    imported: Mapping[str, Any],
    without: tuple[str, ...] = (),
    threshold: float = THRESHOLD,
) -> dict[str, Any]:
    """The card of an imported checkpoint, whose LLaVA is the folder `llava` beside it.

    Args:
        system: kind of the system.
        name: of the model.
        config: the training config; its data is what the card names as training data.
        source: the release.
        imported: counts and assumptions of the import.
        without: arguments of the language model to leave out.
        threshold: selection threshold.
    """
    task = config["model"]["task"]
    lmm = changed(arguments_of(task)["lmm"], without=without, model=f"{BESIDE}/llava")
    return {
        "system": system,
        "name": name,
        "config": changed(task, without=("start",), lmm=lmm),
        **({"data": config["data"]} if "data" in config else {}),
        "threshold": threshold,
        "source": str(source),
        "imported": dict(imported),
    }
