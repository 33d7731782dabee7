"""Loads models of transformers with their processors, by hub id or folder, with checks and short errors."""

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import logging

from maskselect.backends.weightless import reads_weights

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHOWN = 3
"""Names of missing tensors in a message."""


def model_type(model: str, what: str, example: str, expected: Collection[str] = ()) -> str:
    """The `model_type` in the config of a model, before any weights are loaded.

    Args:
        model: hub id or folder.
        what: kind of the model, for messages.
        example: a hub id of this kind, for messages.
        expected: allowed types; empty for any.

    Raises:
        FileNotFoundError: the config is not available.
        ValueError: the config is damaged, or its type is not allowed.
    """
    try:
        kind = str(AutoConfig.from_pretrained(model, local_files_only=not reads_weights()).model_type)
    except OSError as error:
        raise FileNotFoundError(_missing(model, what, example) if reads_weights() else _no_config(model)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{_is_not(model, what, example)}: {_first_line(error)}") from error
    if expected and kind not in expected:
        kinds = ", ".join(sorted(expected))
        raise ValueError(f"{_is_not(model, what, example)}: its config says model_type {kind!r}, expected {kinds}")
    return kind


def load_pretrained(
    model: str, what: str, example: str, network: Any, processor: Any, **arguments: Any
) -> tuple[Any, Any]:
    """Load a processor, and a frozen network in evaluation mode on the CPU; see `_without_weights`, too.

    Args:
        model: hub id or folder.
        what: kind of the model, for messages.
        example: a hub id of this kind, for messages.
        network, processor: classes with `from_pretrained`.
        arguments: further arguments of the network's `from_pretrained`.

    Raises:
        FileNotFoundError: a file is not available.
        ValueError: the model is of another kind or damaged, or weights are missing, which transformers would initialise
            at random.
    """
    if not reads_weights():
        return _without_weights(model, network, processor, arguments)
    try:
        loaded_processor = processor.from_pretrained(model)
        with _bars_on_terminal():
            loaded, info = network.from_pretrained(model, output_loading_info=True, **arguments)
    except OSError as error:
        raise FileNotFoundError(_missing(model, what, example)) from error
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{_is_not(model, what, example)}: {_first_line(error)}") from error
    # The criterion has class weights for training only.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("criterion."))
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise ValueError(f"{what} {model!r} lacks {len(missing)} tensors that its config asks for: {shown}")
    return loaded_processor, loaded.eval().requires_grad_(False)


@contextmanager
def _bars_on_terminal() -> Iterator[None]:
    """Disable transformers' progress bars if standard error is not a terminal, so that logs hold errors only."""
    quiet = not sys.stderr.isatty() and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if quiet:
            logging.enable_progress_bar()


def _without_weights(model: str, network: Any, processor: Any, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """`load_pretrained` on the meta device, by the local config or else the argument `published`.

    An `UnreadProcessor` replaces a processor without local files. Raises FileNotFoundError without a config.
    """
    try:
        config = getattr(network, "config_class", AutoConfig).from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        config = arguments.get("published")
        if config is None:
            raise FileNotFoundError(_no_config(model)) from error
    try:
        loaded_processor = processor.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, TypeError):
        loaded_processor = UnreadProcessor()
    dtype = arguments.get("dtype", "auto")
    dtype = (config.dtype or "float32") if dtype == "auto" else dtype
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if hasattr(network, "from_config"):
        attention = {k: v for k, v in arguments.items() if k == "attn_implementation"}
        empty = network.from_config(config, dtype=dtype, **attention)
    else:
        empty = network(config).to(dtype)
    return loaded_processor, empty.eval().requires_grad_(False)


class _Everything(dict[str, int]):
    def __contains__(self, word: object) -> bool:
        return True


class UnreadProcessor:
    """Replaces a processor or tokenizer without local files. Its vocabulary has every word, with the id 0."""

    bos_token_id = eos_token_id = 0

    def __len__(self) -> int:
        return 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """No ids."""
        return {"input_ids": []}

    def get_vocab(self) -> dict[str, int]:
        """A vocabulary with every word."""
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
    """The command that downloads the model, or the example if `model` is a folder."""
    return f"hf download {model if _HUB_ID.fullmatch(model) else example}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__
