"""Writing a LLaVA as transformers reads it: config, weights in shards, tokenizer. Never holds more than a shard."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import AddedToken, LlamaTokenizer, LlavaConfig, PreTrainedTokenizerBase

from maskselect.backends.optional import installing
from maskselect.importers.soundness import sound

SHARD = "2GB"


def write_weights(folder: Path, tensors: Mapping[str, Tensor], config: LlavaConfig, shard: str = SHARD) -> None:
    """config.json, and model.safetensors or its shards with their index; every tensor keeps its dtype.

    tensors: by transformers' names; mapped from disk or not, they are copied shard by shard.
    Raises ValueError for one that cannot be computed with, see `soundness.sound`.
    """
    config.architectures = ["LlavaForConditionalGeneration"]
    config.dtype = str(tensors["lm_head.weight"].dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    # By their sizes alone: what shares memory, as the views of a flat buffer do, would all come into one shard.
    sizes = {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in tensors.items()}
    plan = split_torch_state_dict_into_shards(sizes, max_shard_size=shard)
    for name, members in plan.filename_to_tensors.items():
        held = {
            member: sound(member, tensors[member]).detach().clone(memory_format=torch.contiguous_format)
            for member in members
        }
        save_file(held, folder / name, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The base LLaVA's tokenizer, which puts a space before every piece of text, as the release's did.

    Raises FileNotFoundError when there is none, ValueError when it cannot be read.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        raise FileNotFoundError(f"{folder} holds no tokenizer.model or tokenizer.json of the base LLaVA")
    try:
        found: PreTrainedTokenizerBase = LlamaTokenizer.from_pretrained(folder, legacy=True)
    except Exception as error:  # a damaged file breaks its reader in any way
        known = (folder / "tokenizer.json").is_file() or find_spec("sentencepiece")
        needs = "" if known else f" (a tokenizer.model needs: {installing('import')})"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the tokenizer in {folder} cannot be read{needs}: {reason}") from error
    return found


def add_tokens(tokenizer: PreTrainedTokenizerBase, ordinary: str, special: tuple[str, ...]) -> None:
    """Add what is not there yet, the ordinary token first; each swallows the spaces around it.

    Raises ValueError when the ordinary one was there already, and does not.
    """
    known = tokenizer.get_vocab()
    for text in (ordinary, *special):
        if text not in known:
            token = AddedToken(text, lstrip=True, rstrip=True, normalized=False, special=text in special)
            tokenizer.add_tokens([token], special_tokens=text in special)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token
    alone, behind = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("is", f"is {ordinary}"))
    if behind != [*alone, tokenizer.convert_tokens_to_ids(ordinary)]:
        raise ValueError(f"the tokenizer has {ordinary} already, but not as a token that swallows the space before it")


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer's files, in which a space goes before every piece of text."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"legacy": True}, indent=1) + "\n")
