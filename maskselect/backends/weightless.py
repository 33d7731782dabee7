"""Builds networks without weights, on the meta device, where tensors have shapes and no values.

Constructors that load weights check `reads_weights` first. So `doctor` counts the parameters of the networks that
training would build, and an importer gets the shapes to fill.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_READS = ContextVar("reads_weights", default=True)


def reads_weights() -> bool:
    """Whether constructors load weights; False within `weightless`."""
    return _READS.get()


@contextmanager
def weightless() -> Iterator[None]:
    """A context in which networks are built on the meta device, without loading weights and without network access."""
    before = _READS.set(False)
    try:
        with torch.device("meta"):
            yield
    finally:
        _READS.reset(before)
