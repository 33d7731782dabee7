"""The encoders of a config as far as an importer needs them: their sizes, without any weights."""

from collections.abc import Mapping
from typing import Any, cast

from maskselect.backends.building import build
from maskselect.backends.weightless import weightless
from maskselect.encoders.ensemble import EncoderEnsemble


def bare_encoders(config: Mapping[str, Any]) -> EncoderEnsemble:
    """The ensemble that a config tells, built without any file or network.

    Raises ValueError when it cannot be built.
    """
    with weightless():
        return cast(EncoderEnsemble, build(dict(config)))
