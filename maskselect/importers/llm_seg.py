"""The released LLM-Seg (arXiv 2404.08767): from a DeepSpeed checkpoint to a folder that `maskselect.load` takes.

    DST/llava/                 the frozen weights as transformers reads them, with the tokenizer
    DST/llmseg.safetensors     the trained weights; the config of their card points to the LLaVA beside it

Segment Anything and DINOv2 are left out: the config names their own files. Weights keep their dtype, bfloat16. Every
tensor of the release is checked by name and shape against the system of the config, built on the meta device.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaConfig, PreTrainedTokenizerBase

from maskselect.backends import checkpoints
from maskselect.backends.building import build
from maskselect.backends.config_tree import arguments_of, changed
from maskselect.backends.configs import read_configs
from maskselect.backends.name_map import ImportReport
from maskselect.backends.weightless import weightless
from maskselect.importers.deepspeed import find_states, read_states
from maskselect.importers.hub_folder import read_json
from maskselect.importers.llava_config import CLIP_224, llava_config, text_config, tower_config
from maskselect.importers.llava_folder import (
    SHARD,
    add_tokens,
    check_finite,
    read_tokenizer,
    write_tokenizer,
    write_weights,
)
from maskselect.importers.llm_seg_names import LLAVA, LLM_SEG, SYSTEM_LLAVA
from maskselect.importers.release import release_card, system_task
from maskselect.lmm.llava import IMAGE_FRAME
from maskselect.ops.atomic import atomic_folder, refuse_filled
from maskselect.systems.llmseg import LLMSeg
from maskselect.systems.questions import SEG

MADE = ("model.multi_modal_projector.linear_2.weight", "model.multi_modal_projector.linear_2.bias")
"""Second layer of the LLaVA's projector, an identity: the projector of the release has one layer."""


def import_llm_seg(
    source: Path, destination: Path, tokenizer: Path, configs: Sequence[str | Path], shard: str = SHARD
) -> ImportReport:
    """Read a release and write a checkpoint with its LLaVA; the folder appears whole or not at all.

    Args:
        source: see `deepspeed.find_states`.
        destination: a new or empty folder.
        tokenizer: folder with the tokenizer files and the config.json of the base LLaVA.
        configs: the config of the system, and overlays; the card names their data as training data.
        shard: maximum size of a file of weights.

    Raises:
        FileNotFoundError: if an input is missing.
        ValueError: if an input is damaged or unsafe, or if names or shapes are not those of the release.
    """
    refuse_filled(destination)
    config = read_configs(configs)
    words = read_tokenizer(tokenizer)
    states = find_states(source)
    tensors = read_states(states)
    task = system_task(config, LLMSeg)
    llava = base_config(tokenizer, tensors, states)
    names, report = LLM_SEG.account(tensors, expected_shapes(llava, task))
    report.check(str(states), "the released LLM-Seg")
    _extend(words, llava.text_config.vocab_size, tokenizer, states)
    imported = {"matched": len(report.matched), "dropped": report.reasons()}
    card = release_card("llmseg", "llm-seg", config, source, imported)
    _write(destination, {own: tensors[foreign] for own, foreign in names.items()}, llava, words, card, shard)
    return report


def base_config(folder: Path, tensors: Mapping[str, Tensor], origin: Path) -> LlavaConfig:
    """The config of the frozen LLaVA in transformers' terms.

    Args:
        folder: holds the config.json of the base LLaVA.
        tensors: of the release.
        origin: their file, for errors.

    Raises:
        FileNotFoundError: if config.json is missing.
        ValueError: if config.json is damaged or lacks a size, or if the release has no embeddings.
    """
    path = folder / "config.json"
    base = read_json(path)
    embeddings = LLM_SEG.foreign(f"{LLAVA}model.language_model.embed_tokens.weight")
    if embeddings not in tensors:
        raise ValueError(f"checkpoint {origin} is not a released LLM-Seg: {embeddings} is missing")
    text = text_config(path, base, len(tensors[embeddings]))
    vision = tower_config(path, base, CLIP_224)
    # Images enter as embeddings, so no token stands for an image.
    return llava_config(base, text, vision, projector_hidden_act="linear", image_token_index=0)


def expected_shapes(config: LlavaConfig, task: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Shapes of all tensors that the release must hold, by our names (see `llm_seg_names.LLAVA`).

    Args:
        config: of the frozen LLaVA.
        task: the config tree of the LLMSeg.

    Raises:
        ValueError: if the system of the config trains a part that the release does not have.
    """
    with TemporaryDirectory() as folder, weightless():
        config.save_pretrained(folder)
        lmm = changed(arguments_of(task)["lmm"], model=folder)
        system: LLMSeg = build(changed(task, without=("start",), lmm=lmm))
    frozen = {
        LLAVA + name.removeprefix(SYSTEM_LLAVA).replace(".base_layer.", "."): tensor
        for name, tensor in system.state_dict().items()
        if name.startswith(SYSTEM_LLAVA) and ".lora_" not in name and not name.endswith(MADE)
    }
    tensors = frozen | system.learned_state()
    for name in tensors:
        try:
            LLM_SEG.foreign(name)
        except ValueError as error:
            raise ValueError(f"the config's LLMSeg has {name}, which the release does not have") from error
    return {name: tensor.shape for name, tensor in tensors.items()}


def _extend(words: PreTrainedTokenizerBase, vocabulary: int, folder: Path, states: Path) -> None:
    """Add the release's tokens in its order. Raises ValueError if tokens and embeddings differ in number."""
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
    trained = {name: check_finite(name, tensor) for name, tensor in tensors.items() if not name.startswith(LLAVA)}
    weight = frozen["model.multi_modal_projector.linear_1.weight"]
    frozen |= dict(zip(MADE, (torch.eye(len(weight)).to(weight), torch.zeros(len(weight)).to(weight)), strict=True))
    with atomic_folder(destination, durable=True) as folder:
        (folder / "llava").mkdir()
        write_weights(folder / "llava", frozen, config, shard)
        write_tokenizer(folder / "llava", words)
        checkpoints.write_checkpoint(folder / "llmseg.safetensors", trained, card, stored=None)
