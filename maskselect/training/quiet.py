"""Hides messages of Lightning that need no action: notices, tips, and warnings about intended settings."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_HIDDEN_WARNINGS = (
    r"Found \d+ module\(s\) in eval mode",  # frozen parts stay in it
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # in Lightning, by torch
    r"The '\w+' does not have many workers",  # one process reads frozen features from files
    r"Precision \S+ is not supported by the model summary",
)
"""Regular expressions that match the beginnings of warnings."""


@contextmanager
def quiet() -> Iterator[None]:
    """Context that hides Lightning's notices (devices, seeds, packages to install) and some warnings, but no errors."""
    loggers = {name: logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for beginning in _HIDDEN_WARNINGS:
                warnings.filterwarnings("ignore", beginning)
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
