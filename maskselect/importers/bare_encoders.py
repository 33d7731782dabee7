"""The encoders of a config as far as an importer needs them: their sizes, without any weights."""

from collections.abc import Mapping
from typing import Any, cast

import torch

from maskselect.backends.building import build
from maskselect.encoders.ensemble import EncoderEnsemble


def bare_encoders(config: Mapping[str, Any]) -> EncoderEnsemble:
    """The ensemble that a config tells, built without any file or network.

    Raises ValueError when it cannot be built.
    """
    bare = _without_weights(dict(config))
    try:
        with torch.device("meta"):
            return cast(EncoderEnsemble, build(bare))
    except (NotImplementedError, RuntimeError):  # open_clip computes while it builds
        return cast(EncoderEnsemble, build(bare))


def _without_weights(config: Any) -> Any:
    if isinstance(config, dict):
        bare = {"pretrained": None, "checkpoint": None}
        return {key: bare[key] if key in bare else _without_weights(value) for key, value in config.items()}
    return [_without_weights(value) for value in config] if isinstance(config, list) else config
