"""Networks without weights: built on the meta device, where tensors have shapes and no values.

Constructors that read weights from files ask `reads_weights` first. So a class is its own description: `doctor` counts
the parameters of what training would build, and an importer learns the shapes that it has to fill.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_READS = ContextVar("reads_weights", default=True)


def reads_weights() -> bool:
    """Whether constructors are to read weights; false within `weightless`."""
    return _READS.get()


@contextmanager
def weightless() -> Iterator[None]:
    """A block in which networks are built on the meta device; no weights are read and no network is asked."""
    before = _READS.set(False)
    try:
        with torch.device("meta"):
            yield
    finally:
        _READS.reset(before)
