"""Loading the model that a command uses."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskselect.predictor import Model


def load_model(options: argparse.Namespace) -> "Model":
    """The model of `--model` on `--device` with `--refiner`, with candidates of `--proposer`, kept in `--proposals`."""
    from maskselect.predictor import load
    from maskselect.proposers.loading import load_proposer

    model = load(options.model, device=options.device, refiner=options.refiner)
    if options.proposer is not None:
        model.propose_with(load_proposer(options.proposer, options.device), options.proposer)
    if options.proposals is not None:
        model.keep_candidates(options.proposals)
    return model
