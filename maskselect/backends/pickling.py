"""Pickling networks after they were used: transformers leaves hooks in them that Python cannot pickle."""

import io
import pickle
from typing import Any

from torch import nn

_HOOKED = "_output_capturing_hooks_installed"
"""How transformers marks a network whose layers it watches; without it the hooks come back when they are needed."""


class _Unhooked(pickle.Pickler):
    """A pickler that leaves out the hooks of transformers, without touching the networks themselves."""

    def reducer_override(self, given: Any) -> Any:
        """How a module is pickled; everything else as always."""
        if not isinstance(given, nn.Module) or not (given._forward_hooks or _HOOKED in vars(given)):
            return NotImplemented
        reduced: Any = given.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        make, arguments, state, *rest = reduced
        hooks = {key: hook for key, hook in given._forward_hooks.items() if not _of_transformers(hook)}
        kept = {name: value for name, value in state.items() if name != _HOOKED}
        return (make, arguments, kept | {"_forward_hooks": type(given._forward_hooks)(hooks)}, *rest)


def _of_transformers(hook: Any) -> bool:
    name, module = getattr(hook, "__qualname__", ""), getattr(hook, "__module__", None) or ""
    return "<locals>" in name and module.startswith("transformers.")


def packed(given: Any) -> bytes:
    """Anything with networks in it, pickled. Raises what `pickle.dumps` raises."""
    out = io.BytesIO()
    _Unhooked(out, pickle.HIGHEST_PROTOCOL).dump(given)
    return out.getvalue()
