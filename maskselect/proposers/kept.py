"""Candidates that are made once for each picture, however often and by however many models they are asked for."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from maskselect.backends.cache_keys import cache_key
from maskselect.proposers.precomputed import PrecomputedProposer
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer


class KeptProposer:
    """A proposer whose candidates stay in a folder, to be read by every later one with the same weights and settings.

    proposer: the one that is asked where nothing is kept.
    folder: each proposer has a folder of its own in it; files are made as pictures come.

    Pictures are told apart by their pixels. Everything else is the proposer's own: boxes, points, `trained_on`.
    """

    def __init__(self, proposer: Proposer, folder: str | Path) -> None:
        self.proposer = proposer
        name = cache_key("KeptProposer", proposer=proposer)
        self._kept = PrecomputedProposer(Path(folder) / name, name)

    def __getattr__(self, name: str) -> Any:
        if name == "proposer":  # not there yet, as when a copy is being made
            raise AttributeError(name)
        return getattr(self.proposer, name)

    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates of (H, W, 3) uint8; made anew where those that are kept are damaged."""
        digest = hashlib.sha256(repr(image.shape).encode())
        digest.update(image.tobytes())
        key = digest.hexdigest()[:24]
        if self._kept.has(key):
            with suppress(ValueError):
                return self._kept.propose(image, key)
        self._kept.write(key, self.proposer.propose(image))
        return self._kept.propose(image, key)
