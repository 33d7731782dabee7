"""Pickles networks after use: transformers leaves hooks in them that Python cannot pickle."""

import io
import pickle
from typing import Any

from torch import nn

_HOOKED = "_output_capturing_hooks_installed"
"""Mark of transformers on a network with its hooks. Without the mark, transformers adds the hooks again."""


class _Unhooked(pickle.Pickler):
    """A pickler that omits the hooks of transformers. The networks stay unchanged."""

    def reducer_override(self, value: Any) -> Any:
        """Reduce a module without hooks of transformers; other values as usual."""
        if not isinstance(value, nn.Module) or not (value._forward_hooks or _HOOKED in vars(value)):
            return NotImplemented
        reduced: Any = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        make, arguments, state, *rest = reduced
        hooks = {key: hook for key, hook in value._forward_hooks.items() if not _of_transformers(hook)}
        kept = {name: part for name, part in state.items() if name != _HOOKED}
        return (make, arguments, kept | {"_forward_hooks": type(value._forward_hooks)(hooks)}, *rest)


def _of_transformers(hook: Any) -> bool:
    name, module = getattr(hook, "__qualname__", ""), getattr(hook, "__module__", None) or ""
    return "<locals>" in name and module.startswith("transformers.")


def packed(value: Any) -> bytes:
    """Pickle a value that contains networks. Raises as `pickle.dumps`."""
    out = io.BytesIO()
    _Unhooked(out, pickle.HIGHEST_PROTOCOL).dump(value)
    return out.getvalue()
