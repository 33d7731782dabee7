"""Loading the model that a command was asked to use."""

import argparse
from typing import Any


def load_model(options: argparse.Namespace) -> Any:
    """The model of `--model` on `--device`."""
    from maskselect.predictor import load

    model = load(options.model, device=options.device)
    if getattr(options, "proposals", None) is not None:
        model.keep_candidates(options.proposals)
    return model
