"""A language model of transformers with its tokenizer, by hub id or folder, whichever family it is of."""

from collections.abc import Sequence
from typing import Any

from transformers import AutoTokenizer

from maskselect.backends.pretrained import load_pretrained
from maskselect.backends.weightless import reads_weights
from maskselect.lmm.published import published_config
from maskselect.lmm.quantizing import pack_shapes, packing


def load_language_model(
    model: str, what: str, example: str, network: Any, dtype: str | None, quantize: str | None, kept: Sequence[str]
) -> tuple[Any, Any]:
    """Tokenizer and network; who trains what is decided elsewhere, so all that can does.

    what, example, network: see `load_pretrained`.
    dtype: of the weights; None is that of the files.
    quantize, kept: "nf4" for 4 bits, and the names of the parts that stay as they are, see `packing`.
    Raises as `load_pretrained` and `packing` do.
    """
    given: dict[str, Any] = {"attn_implementation": "sdpa", "dtype": dtype or "auto"}
    given |= packing(quantize, kept) if reads_weights() else {"published": published_config(model)}
    tokenizer, loaded = load_pretrained(model, what, example, network, AutoTokenizer, **given)
    if quantize is not None and not reads_weights():
        pack_shapes(loaded, kept)
    for parameter in loaded.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return tokenizer, loaded
