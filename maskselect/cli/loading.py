"""Loading the model that a command uses."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskselect.predictor import Model


def load_model(options: argparse.Namespace) -> "Model":
    """The model of `--model` on `--device` with `--refiner`, which reads candidates from `--proposals`."""
    from maskselect.predictor import load

    model = load(options.model, device=options.device, refiner=options.refiner)
    if options.proposals is not None:
        model.keep_candidates(options.proposals)
    return model
