"""The config and the card of a released system, and its mask tokenizer: what importers share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskselect.backends.config_tree import Node, arguments_of, changed, path_of
from maskselect.importers.llava_folder import check_finite
from maskselect.systems.loading import BESIDE
from maskselect.tokens.mask_tokenizer import MaskTokenizer

THRESHOLD = 0.5
"""Selection threshold of a release: IoP in LLM-Seg's validators; not published for RAS."""

TOKENIZER = "reader.mask_tokenizer."
"""Prefix of the mask tokenizer in a system."""

_PROJECTOR = "model.multi_modal_projector.linear_"


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
    folder: str = "llava",
) -> dict[str, Any]:
    """The card of an imported checkpoint, whose language model is a folder beside it.

    Args:
        system: kind of the system.
        name: of the model.
        config: the training config; its data is what the card names as training data.
        source: the release.
        imported: counts and assumptions of the import.
        without: arguments of the language model to leave out.
        threshold: selection threshold.
        folder: name of the language model's folder.
    """
    task = config["model"]["task"]
    lmm = changed(arguments_of(task)["lmm"], without=without, model=f"{BESIDE}/{folder}")
    return {
        "system": system,
        "name": name,
        "config": changed(task, without=("start",), lmm=lmm),
        **({"data": config["data"]} if "data" in config else {}),
        "threshold": threshold,
        "source": str(source),
        "imported": dict(imported),
    }


def mask_tokenizer(own: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """The mask tokenizer of a release that has none, by names in the system.

    Its projector is that of the image. Features stay as they are, and pre-tokens are zero.

    Args:
        own: gives a tensor of the language model by its name there.

    Raises:
        ValueError: for a tensor that `check_finite` refuses.
    """
    width, channels = own(f"{_PROJECTOR}1.weight").shape
    tensors = MaskTokenizer(channels, width).state_dict()
    tensors |= {"fitted": torch.tensor(True), "pre": torch.zeros_like(tensors["pre"])}
    for layer, place in ((1, 0), (2, 2)):
        for kind in ("weight", "bias"):
            name = f"{_PROJECTOR}{layer}.{kind}"
            tensors[f"projector.{place}.{kind}"] = check_finite(name, own(name))
    return {TOKENIZER + name: tensor for name, tensor in tensors.items()}
