"""A LLaVA in original naming (liuhaotian/llava-v1.5-13b), converted to a folder that transformers and `Llava` read.

transformers loads a folder in original naming without an error, with random weights. As in llava-hf's files, the
vocabulary gets the tokens <image> and <pad> and is padded to a multiple of 64: 32064 rows for 32000 tokens. No image
processor is written, because `Llava` prepares images itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AddedToken, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from maskselect.backends.name_map import ImportReport
from maskselect.importers.hub_folder import HubWeights
from maskselect.importers.llava_config import llava_1_5_config, read_base, vision_tower
from maskselect.importers.llava_folder import SHARD, read_tokenizer, write_tokenizer, write_weights
from maskselect.importers.llava_names import EMBEDDINGS, ORIGINAL, OUTPUT
from maskselect.ops.atomic import atomic_folder, refuse_filled

WHAT, EXAMPLE = "LLaVA in original naming", "liuhaotian/llava-v1.5-13b"

ADDED = ("<image>", "<pad>")
"""Tokens that follow the original vocabulary, in this order."""


@dataclass(frozen=True)
class LlavaPlan:
    """The content of the new folder.

    Attributes:
        config: its config.
        tokenizer: its tokenizer.
        names: the foreign name of every tensor from the file, by its own name.
        tower: the other tensors, by their own names.
        report: what becomes of every tensor; not checked yet.
    """

    config: LlavaConfig
    tokenizer: PreTrainedTokenizerBase
    names: dict[str, str]
    tower: dict[str, Tensor]
    report: ImportReport


def import_llava(
    source: Path, destination: Path, tokenizer: Path | None = None, tower: str | None = None, shard: str = SHARD
) -> ImportReport:
    """Read a folder in original naming and write one that transformers reads; it appears whole or not at all.

    Weights keep their dtype; a vision tower from elsewhere gets that of the other weights.

    Args:
        source: config.json with mm_* settings, and weights, see `HubWeights`.
        destination: a new or empty folder.
        tokenizer: folder with tokenizer.model or tokenizer.json; default: `source`.
        tower: folder or hub id of the CLIP to take if the weights hold no vision tower.
        shard: maximum size of a file of weights.

    Raises:
        FileNotFoundError: if an input is missing.
        ValueError: if an input is damaged or unsafe, or if names or shapes are not those of LLaVA-1.5.
    """
    refuse_filled(destination)
    weights = HubWeights(source, WHAT, EXAMPLE)
    plan = plan_llava(source, weights.headers, tokenizer, tower)
    plan.report.check(str(source), f"a {WHAT}")
    with atomic_folder(destination, durable=True) as folder:
        write_llava(folder, plan, weights, shard)
    return plan.report


def plan_llava(folder: Path, headers: Mapping[str, Tensor], tokenizer: Path | None, tower: str | None) -> LlavaPlan:
    """Plan the import of the tensors of `folder`. Raises as `import_llava` does, except for the report."""
    base = read_base(folder)
    rows = len(headers[EMBEDDINGS]) if EMBEDDINGS in headers else 0
    if not rows:
        raise ValueError(f"checkpoint {folder} is not a {WHAT}: {EMBEDDINGS} is missing")
    vision, tower_tensors = vision_tower(folder, base, headers, tower)
    config = llava_1_5_config(folder / "config.json", base, vision, rows)
    words = _read_tokenizer(tokenizer or folder, rows, folder)
    expected = {name: shape for name, shape in _shapes(config, rows).items() if name not in tower_tensors}
    names, report = ORIGINAL.account(headers, expected)
    if report.doubled:
        raise ValueError(f"checkpoint {folder}: {report.doubled[0]}")
    return LlavaPlan(config, words, names, tower_tensors, report)


def write_llava(folder: Path, plan: LlavaPlan, weights: Mapping[str, Tensor], shard: str = SHARD) -> None:
    """Write config, weights and tokenizer into an existing folder, with at most one shard in memory."""
    write_weights(folder, _NewTensors(plan, weights), plan.config, shard)
    write_tokenizer(folder, plan.tokenizer)


class _NewTensors(Mapping[str, Tensor]):
    """The tensors of the new folder by their own names; each is made at every access and not kept."""

    def __init__(self, plan: LlavaPlan, weights: Mapping[str, Tensor]) -> None:
        self._plan, self._weights = plan, weights
        self._dtype = weights[OUTPUT].dtype

    def __getitem__(self, name: str) -> Tensor:
        if name in self._plan.tower:
            return self._plan.tower[name].to(self._dtype)
        foreign = self._plan.names[name]
        tensor = self._weights[foreign]
        if foreign not in (EMBEDDINGS, OUTPUT):
            return tensor
        # New rows are the mean of the others, so that no new token is ever the most likely one.
        mean = tensor.mean(0, keepdim=True, dtype=torch.float32).to(tensor.dtype)
        return torch.cat([tensor, mean.expand(self._plan.config.text_config.vocab_size - len(tensor), -1)])

    def __iter__(self) -> Iterator[str]:
        yield from self._plan.names
        yield from self._plan.tower

    def __len__(self) -> int:
        return len(self._plan.names) + len(self._plan.tower)


def _shapes(config: LlavaConfig, rows: int) -> dict[str, torch.Size]:
    """Shapes of all tensors by their own names; embeddings and output layer have the `rows` of the file."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for foreign in (EMBEDDINGS, OUTPUT):
        (name,) = ORIGINAL.own(foreign)
        shapes[name] = torch.Size((rows, shapes[name][1]))
    return shapes


def _read_tokenizer(folder: Path, rows: int, source: Path) -> PreTrainedTokenizerBase:
    """The tokenizer with `ADDED`. Raises ValueError if the number of its other tokens is not `rows`."""
    words = read_tokenizer(folder)
    known = words.get_vocab()
    for text in ADDED:
        if text not in known:
            words.add_tokens([AddedToken(text, normalized=False, special=True)], special_tokens=True)
    words.pad_token = ADDED[1]
    others = len(words) - len(ADDED)
    if words.convert_tokens_to_ids(list(ADDED)) != [rows, rows + 1] or others != rows:
        raise ValueError(
            f"the tokenizer in {folder} has {others} tokens beside {' and '.join(ADDED)}, but {source} has embeddings "
            f"of {rows}; expected the tokenizer that it was trained with, these two at its end or absent"
        )
    return words
