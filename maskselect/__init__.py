"""maskselect: select masks by vision-language prompts.

import maskselect
model = maskselect.load("ras")
group = model.select("kitchen.jpg", "mugs left of <mask-ref>", references=[mask])
"""

from typing import Any

from maskselect.backends.cache import ignore_unusable_cache_home

ignore_unusable_cache_home()

__version__ = "0.1.0"
__all__ = ["BoxRef", "MaskRef", "PointRef", "load", "push_to_hub"]


def __getattr__(name: str) -> Any:
    if name in ("BoxRef", "MaskRef", "PointRef"):  # on use, so that importing the package is instant
        from maskselect.structures import references

        return getattr(references, name)
    raise AttributeError(f"module 'maskselect' has no attribute {name!r}")


def load(name_or_path: str, device: str = "auto") -> Any:
    """Load a model; see `maskselect.predictor.load`. Imported on use, so that importing the package is instant."""
    from maskselect.predictor import load as load_model
    from maskselect.reports.overlay import draw_overlay

    return load_model(name_or_path, device, draw_overlay)


def push_to_hub(checkpoint: str, repository: str, **settings: Any) -> str:
    """Publish a checkpoint with a model card on the hub; see `maskselect.publishing.push_to_hub` for the settings."""
    from maskselect.publishing import push_to_hub as push

    return push(checkpoint, repository, **settings)
