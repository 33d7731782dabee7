"""Models of transformers with their processors, by hub id or folder: whole, or one sentence that says what is wrong."""

import re
from collections.abc import Collection
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHOWN = 3
"""How many names of missing tensors a message shows."""


def model_type(model: str, what: str, example: str, expected: Collection[str] = ()) -> str:
    """The `model_type` that the config of a model names, before any weights are read.

    what: what the model should be, for messages.  example: a hub id of that kind.
    expected: the types that will do; empty for any.
    Raises FileNotFoundError when the config is not there, ValueError when it is damaged or of another type.
    """
    try:
        found = str(AutoConfig.from_pretrained(model).model_type)
    except OSError as error:
        raise FileNotFoundError(_missing(model, what, example)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{_is_not(model, what, example)}: {_first_line(error)}") from error
    if expected and found not in expected:
        kinds = ", ".join(sorted(expected))
        raise ValueError(f"{_is_not(model, what, example)}: its config says model_type {found!r}, expected {kinds}")
    return found


def load_pretrained(model: str, what: str, example: str, network: Any, processor: Any, **given: Any) -> tuple[Any, Any]:
    """The processor, and the network in evaluation mode, frozen, on the CPU.

    network, processor: classes with `from_pretrained`.  given: further arguments for the network's.
    Raises FileNotFoundError when something is not there; ValueError when it is of another kind, damaged, or lacks
    weights, which transformers would draw at random.
    """
    try:
        read = processor.from_pretrained(model)
        loaded, told = network.from_pretrained(model, output_loading_info=True, **given)
    except OSError as error:
        raise FileNotFoundError(_missing(model, what, example)) from error
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{_is_not(model, what, example)}: {_first_line(error)}") from error
    # A criterion holds class weights of training alone.
    absent = sorted(name for name in told["missing_keys"] if not name.startswith("criterion."))
    if absent:
        shown = ", ".join(absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
        raise ValueError(f"{what} {model!r} lacks {len(absent)} tensors that its config asks for: {shown}")
    return read, loaded.eval().requires_grad_(False)


def _missing(model: str, what: str, example: str) -> str:
    return (
        f"{what} {model!r} could not be loaded; expected a folder or a hub id such as {example!r} "
        f"(get it with: {_command(model, example)})"
    )


def _is_not(model: str, what: str, example: str) -> str:
    return f"{model!r} is not a {what} such as {example!r} (get that with: {_command(example, example)})"


def _command(model: str, example: str) -> str:
    """What downloads the model, or the example where the model is a folder's name."""
    return f"hf download {model if _HUB_ID.fullmatch(model) else example}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__
