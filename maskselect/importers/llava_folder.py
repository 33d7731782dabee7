"""Writes a LLaVA as transformers reads it: config, weights in shards, tokenizer. At most one shard is in memory."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import AddedToken, LlamaTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from maskselect.backends.optional import installing

SHARD = "2GB"


def check_finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor itself. Raises ValueError if it is sparse, not of a floating-point dtype, or has infinite values."""
    if tensor.layout != torch.strided or not tensor.is_floating_point():
        layout = "" if tensor.layout == torch.strided else f"{tensor.layout} of "
        kind = f"{layout}{tensor.dtype}".replace("torch.", "")
        raise ValueError(f"tensor {name} is {kind}; expected a dense one of floating point")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"tensor {name} holds values that are not finite; the file is damaged")
    return tensor


def write_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: PreTrainedConfig,
    shard: str = SHARD,
    network: str = "LlavaForConditionalGeneration",
) -> None:
    """Write config.json, and model.safetensors or its shards with their index; every tensor keeps its dtype.

    Args:
        folder: an existing folder.
        tensors: by transformers' names, mapped from disk or not.
        config: of the network.
        shard: maximum size of a file.
        network: its class.

    Raises:
        ValueError: for a tensor that `check_finite` refuses.
    """
    config.architectures = [network]
    config.dtype = str(tensors["lm_head.weight"].dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    # By sizes alone: tensors that share memory, such as views of one flat buffer, would all go into one shard.
    sizes = {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in tensors.items()}
    plan = split_torch_state_dict_into_shards(sizes, max_shard_size=shard)
    for name, members in plan.filename_to_tensors.items():
        held = {
            member: check_finite(member, tensors[member]).detach().clone(memory_format=torch.contiguous_format)
            for member in members
        }
        save_file(held, folder / name, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The base LLaVA's tokenizer, which puts a space before every piece of text, as that of the release does.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        raise FileNotFoundError(f"{folder} holds no tokenizer.model or tokenizer.json of the base LLaVA")
    try:
        tokenizer: PreTrainedTokenizerBase = LlamaTokenizer.from_pretrained(folder, legacy=True)
    except Exception as error:  # a damaged file may raise anything
        known = (folder / "tokenizer.json").is_file() or find_spec("sentencepiece")
        needs = "" if known else f" (a tokenizer.model needs: {installing('import')})"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the tokenizer in {folder} cannot be read{needs}: {reason}") from error
    return tokenizer


def add_tokens(tokenizer: PreTrainedTokenizerBase, ordinary: str, special: tuple[str, ...]) -> None:
    """Add the missing tokens, the ordinary one first; each strips the spaces around it.

    Raises:
        ValueError: if the tokenizer has the ordinary token already and it does not strip spaces.
    """
    known = tokenizer.get_vocab()
    for text in (ordinary, *special):
        if text not in known:
            token = AddedToken(text, lstrip=True, rstrip=True, normalized=False, special=text in special)
            tokenizer.add_tokens([token], special_tokens=text in special)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token
    alone, behind = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("is", f"is {ordinary}"))
    if behind != [*alone, tokenizer.convert_tokens_to_ids(ordinary)]:
        raise ValueError(f"the tokenizer has {ordinary} already, but not as a token that strips the space before it")


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the tokenizer; it puts a space before every piece of text."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"legacy": True}, indent=1) + "\n")
