"""Models of transformers with their processors, by hub id or folder: whole, or one sentence that says what is wrong."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig

from maskselect.backends.weightless import reads_weights

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
        found = str(AutoConfig.from_pretrained(model, local_files_only=not reads_weights()).model_type)
    except OSError as error:
        raise FileNotFoundError(_missing(model, what, example) if reads_weights() else _no_config(model)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{_is_not(model, what, example)}: {_first_line(error)}") from error
    if expected and found not in expected:
        kinds = ", ".join(sorted(expected))
        raise ValueError(f"{_is_not(model, what, example)}: its config says model_type {found!r}, expected {kinds}")
    return found


def load_pretrained(model: str, what: str, example: str, network: Any, processor: Any, **given: Any) -> tuple[Any, Any]:
    """The processor, and the network in evaluation mode, frozen, on the CPU; see `_without_weights` too.

    network, processor: classes with `from_pretrained`.  given: further arguments for the network's.
    Raises FileNotFoundError when something is not there; ValueError when it is of another kind, damaged, or lacks
    weights, which transformers would draw at random.
    """
    if not reads_weights():
        return _without_weights(model, network, processor, given)
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


def _without_weights(model: str, network: Any, processor: Any, given: Mapping[str, Any]) -> tuple[Any, Any]:
    """The same on the meta device, by the config on this machine, or by what is published of its sizes.

    Without files of the processor an `UnreadProcessor` takes its place. Raises FileNotFoundError without a config.
    """
    try:
        config = getattr(network, "config_class", AutoConfig).from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        config = given.get("published")
        if config is None:
            raise FileNotFoundError(_no_config(model)) from error
    try:
        read = processor.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, TypeError):
        read = UnreadProcessor()
    held = given.get("dtype", "auto")
    held = (config.dtype or "float32") if held == "auto" else held
    arguments = {"dtype": getattr(torch, held) if isinstance(held, str) else held}
    if "attn_implementation" in given:
        arguments["attn_implementation"] = given["attn_implementation"]
    if hasattr(network, "from_config"):
        made = network.from_config(config, **arguments)
    else:
        made = network(config).to(arguments["dtype"])
    return read, made.eval().requires_grad_(False)


class _Everything(dict[str, int]):
    def __contains__(self, word: object) -> bool:
        return True


class UnreadProcessor:
    """In place of a processor or tokenizer whose files are not here: it knows every word, under one id."""

    bos_token_id = eos_token_id = 0

    def __len__(self) -> int:
        return 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """No ids."""
        return {"input_ids": []}

    def get_vocab(self) -> dict[str, int]:
        """A vocabulary that has every word."""
        return _Everything()

    def convert_tokens_to_ids(self, token: str) -> int:
        """0."""
        return 0


def _no_config(model: str) -> str:
    return f"the config of {model} is not on this machine"


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
