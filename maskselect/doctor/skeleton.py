"""A system without weights: the classes of a config, built on the meta device, where tensors have no values.

What trains, and what does not, is decided by the same code as in training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from maskselect.backends.building import make
from maskselect.backends.config_tree import Node, rebuilt
from maskselect.backends.precision import widen
from maskselect.backends.weightless import weightless

_OURS = "maskselect."
_ABSENT = object()
"""In place of what could not be built."""


@dataclass
class Skeleton:
    """What could be built of a config.

    Args:
        whole: the network at its top, or None.
        parts: by their place, the largest objects that were built.
        reasons: why the others were not.
    """

    whole: nn.Module | None = None
    parts: dict[tuple[str, ...], Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def build_skeleton(config: Mapping[str, Any]) -> Skeleton:
    """A config tree on the meta device, or as much of it as there are sizes for. Only configs and cards are read.

    Raises ValueError or TypeError for arguments that a class refuses.
    """
    found = Skeleton()

    def made(node: Node) -> Any:
        if _has_absent(node.arguments):
            return _ABSENT
        try:
            if not node.path.startswith(_OURS):
                raise FileNotFoundError(f"{node.path} is not part of maskselect")
            built = make(node)
        except (FileNotFoundError, NotImplementedError) as error:
            found.reasons.append(" ".join(str(error).split()))
            return _ABSENT
        depth = len(node.keys)
        found.parts = {place: part for place, part in found.parts.items() if place[:depth] != node.keys}
        found.parts[node.keys] = built
        return built

    with weightless():
        top = rebuilt(dict(config), made)
    if isinstance(top, nn.Module):
        found.whole = top
        widen(top)  # as training does
    return found


def _has_absent(value: Any) -> bool:
    if isinstance(value, Mapping | list):
        return any(_has_absent(one) for one in (value.values() if isinstance(value, Mapping) else value))
    return value is _ABSENT
