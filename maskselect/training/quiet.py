"""What Lightning tells that nobody can act on, left out: notices, tips, and warnings of what is meant."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_MEANT = (
    r"Found \d+ module\(s\) in eval mode",  # frozen parts stay in it
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # in Lightning, by torch
    r"The '\w+' does not have many workers",  # one process reads frozen features from files
    r"Precision \S+ is not supported by the model summary",
)
"""Beginnings of warnings, as regular expressions."""


@contextmanager
def quiet() -> Iterator[None]:
    """While it is entered, Lightning's notices (devices, seeds, packages to install) and some warnings are not shown.

    Its other warnings are, and all errors.
    """
    loggers = {name: logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for beginning in _MEANT:
                warnings.filterwarnings("ignore", beginning)
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
