"""The base of systems that take their candidates from a frozen proposer."""

import numpy as np
from torch import nn

from maskselect.ops.masks import resize_nearest
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Prompter, Proposer


class ProposingSystem(nn.Module):
    """A system with a proposer, which never trains.

    Args:
        proposer: proposes the candidates.
    """

    def __init__(self, proposer: Proposer) -> None:
        super().__init__()
        self.proposer = proposer
        if isinstance(self.proposer, nn.Module):
            self.proposer.requires_grad_(False)

    def replace_proposer(self, proposer: Proposer) -> None:
        """Replace the proposer, for example by one that reads from a store."""
        self._modules.pop("proposer", None)  # nn.Module does not replace a registered module by another object
        self.proposer = proposer

    @property
    def prompter(self) -> Prompter | None:
        """The proposer if it accepts boxes and points, else None."""
        return self.proposer if isinstance(self.proposer, Prompter) else None

    def pool_of(self, image: np.ndarray, extra: MaskSet | None) -> MaskSet:
        """The candidates of a picture (H, W, 3) uint8, then the extra ones, which may have any size.

        A system may read the scores of candidates. Extra masks have none of the proposer's, so they get the median of
        the proposals' scores, which tells them apart from no other candidate; without proposals they keep their own.
        """
        pool = self.proposer.propose(image)
        if extra is not None and len(extra):
            scores = pool.scores.median().expand(len(extra)).clone() if len(pool) else extra.scores
            pool = pool.concat(MaskSet(resize_nearest(extra.masks, pool.image_size), scores, extra.source))
        return pool
