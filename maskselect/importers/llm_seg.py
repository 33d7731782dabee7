"""The released LLM-Seg (arXiv 2404.08767): from a DeepSpeed checkpoint to a folder that `maskselect.load` takes.

    DST/llava/                 what is frozen, as transformers reads it, with the tokenizer
    DST/llmseg.safetensors     what was trained, with its card, whose config finds the LLaVA beside it

Segment Anything and DINOv2 are left behind: the config names their own files. Weights keep their dtype, bfloat16.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaConfig, PreTrainedTokenizerBase

from maskselect.backends import checkpoints
from maskselect.backends.config_tree import arguments_of, changed
from maskselect.backends.configs import read_configs
from maskselect.backends.name_map import ImportReport
from maskselect.importers.deepspeed import find_states, read_states
from maskselect.importers.llava_folder import SHARD, add_tokens, read_tokenizer, write_tokenizer, write_weights
from maskselect.importers.llm_seg_names import LLAVA, LLM_SEG
from maskselect.importers.llm_seg_shapes import MADE, expected_shapes, llava_config
from maskselect.importers.soundness import sound
from maskselect.lmm.llava import IMAGE_FRAME
from maskselect.ops.atomic import atomic_folder, refuse_filled
from maskselect.systems.loading import BESIDE
from maskselect.systems.questions import SEG

THRESHOLD = 0.5
"""Of IoP, in the released validators."""


def import_llm_seg(
    source: Path, destination: Path, tokenizer: Path, configs: Sequence[str | Path], shard: str = SHARD
) -> ImportReport:
    """Read a release and write what we need of it; the folder appears whole or not at all.

    source: see `deepspeed.find_states`.  destination: a folder that is not there yet, or empty.
    tokenizer: folder with the base LLaVA's tokenizer files and config.json.
    configs: the config of the system, and overlays; their data is what the card says it was trained on.
    shard: most that one file of weights holds.

    Raises FileNotFoundError when something is not there, ValueError when it is damaged, unsafe, or of other names or
    shapes than the release's.
    """
    refuse_filled(destination)
    config = read_configs(configs)
    words = read_tokenizer(tokenizer)
    states = find_states(source)
    tensors = read_states(states)
    llava = llava_config(tokenizer, tensors, states)
    task = _task(config)
    names, report = LLM_SEG.account(tensors, expected_shapes(llava, task))
    report.check(str(states), "the released LLM-Seg")
    _extend(words, llava.text_config.vocab_size, tokenizer, states)
    card = {
        "system": "llmseg",
        "name": "llm-seg",
        "config": _pointed(task),
        **({"data": config["data"]} if "data" in config else {}),
        "threshold": THRESHOLD,
        "source": str(source),
        "imported": {"matched": len(report.matched), "dropped": report.reasons()},
    }
    _write(destination, {own: tensors[foreign] for own, foreign in names.items()}, llava, words, card, shard)
    return report


def _task(config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        task: dict[str, Any] = config["model"]["task"]
        arguments_of(arguments_of(task)["lmm"])["model"]
        return task
    except (KeyError, TypeError) as error:
        raise ValueError(f"the config has no model.task with an lmm by name: {error} is missing") from error


def _pointed(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task with the LLaVA beside its checkpoint, and without what training would start from."""
    lmm = changed(arguments_of(task)["lmm"], model=f"{BESIDE}/llava")
    return changed(task, without=("start",), lmm=lmm)


def _extend(words: PreTrainedTokenizerBase, vocabulary: int, folder: Path, states: Path) -> None:
    """Add the release's tokens in its order. Raises ValueError when there are more or fewer than embeddings."""
    add_tokens(words, SEG, IMAGE_FRAME)
    if len(words) != vocabulary:
        raise ValueError(
            f"the tokenizer in {folder} has {len(words)} tokens, with {SEG} and {' '.join(IMAGE_FRAME)}, but {states} "
            f"has embeddings of {vocabulary}; expected the tokenizer of the LLaVA that it was trained from"
        )


def _write(
    destination: Path,
    tensors: Mapping[str, Tensor],
    config: LlavaConfig,
    words: PreTrainedTokenizerBase,
    card: dict[str, Any],
    shard: str,
) -> None:
    frozen = {name.removeprefix(LLAVA): tensor for name, tensor in tensors.items() if name.startswith(LLAVA)}
    trained = {name: sound(name, tensor) for name, tensor in tensors.items() if not name.startswith(LLAVA)}
    weight = frozen["model.multi_modal_projector.linear_1.weight"]
    frozen |= dict(zip(MADE, (torch.eye(len(weight)).to(weight), torch.zeros(len(weight)).to(weight)), strict=True))
    with atomic_folder(destination, durable=True) as folder:
        (folder / "llava").mkdir()
        write_weights(folder / "llava", frozen, config, shard)
        write_tokenizer(folder / "llava", words)
        checkpoints.write_checkpoint(folder / "llmseg.safetensors", trained, card, stored=None)
