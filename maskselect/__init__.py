"""Select masks by vision-language prompts.

Example:
    >>> import maskselect
    >>> model = maskselect.load("ras")  # doctest: +SKIP
    >>> group = model.select("kitchen.jpg", "mugs left of <mask-ref>", references=[mask])  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from maskselect.backends.cache import ignore_unusable_cache_home

if TYPE_CHECKING:
    from maskselect.evaluation.run import evaluate
    from maskselect.predictor import Model, load
    from maskselect.publishing import push_to_hub
    from maskselect.structures.prediction import ClipGroup, MaskGroup
    from maskselect.structures.references import BoxRef, MaskRef, PointRef

ignore_unusable_cache_home()

__version__ = "0.1.0"
__all__ = ["BoxRef", "ClipGroup", "MaskGroup", "MaskRef", "Model", "PointRef", "evaluate", "load", "push_to_hub"]

_HOMES = {
    "evaluate": "evaluation.run",
    "Model": "predictor",
    "load": "predictor",
    "push_to_hub": "publishing",
    "MaskGroup": "structures.prediction",
    "ClipGroup": "structures.prediction",
    "BoxRef": "structures.references",
    "MaskRef": "structures.references",
    "PointRef": "structures.references",
}
"""The module of each name, which is imported on first use, so that importing the package is instant."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskselect' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"maskselect.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
