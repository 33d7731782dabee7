"""A LLaVA in original naming (liuhaotian/llava-v1.5-13b): to a folder that transformers, and with it `Llava`, reads.

transformers takes a folder in original naming without an error, and gives random weights. The vocabulary gets the two
tokens that llava-hf's files have, <image> and <pad>, and is filled up to a multiple of 64, which makes 32064 of 32000.
No image processor is written: `Llava` prepares images itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import AddedToken, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from maskselect.backends.name_map import ImportReport
from maskselect.importers.hub_folder import HubWeights
from maskselect.importers.llava_config import llava_config, read_base, vision_tower
from maskselect.importers.llava_folder import SHARD, read_tokenizer, write_tokenizer, write_weights
from maskselect.importers.llava_names import EMBEDDINGS, ORIGINAL, OUTPUT
from maskselect.ops.atomic import atomic_folder, refuse_filled

WHAT, EXAMPLE = "LLaVA in original naming", "liuhaotian/llava-v1.5-13b"

ADDED = ("<image>", "<pad>")
"""Tokens behind those of the original, in this order."""


@dataclass(frozen=True)
class LlavaPlan:
    """What is to be written.

    config, words: of the new folder.  names: foreign name of every tensor that comes from the file, by ours.
    tower: the others, by our names.  report: what becomes of every tensor; not checked yet.
    """

    config: LlavaConfig
    words: PreTrainedTokenizerBase
    names: dict[str, str]
    tower: dict[str, Tensor]
    report: ImportReport


def import_llava(
    source: Path, destination: Path, tokenizer: Path | None = None, tower: str | None = None, shard: str = SHARD
) -> ImportReport:
    """Read a folder in original naming and write one that transformers reads; it appears whole or not at all.

    source: config.json with mm_* settings, and weights, see `HubWeights`.
    destination: a folder that is not there yet, or empty.
    tokenizer: folder with tokenizer.model or tokenizer.json, that of `source` by default.
    tower: folder or hub id of the CLIP that is taken when the weights hold no vision tower.
    shard: most that one file of weights holds.

    Weights keep their dtype; a vision tower from elsewhere gets that of the rest.
    Raises FileNotFoundError when something is not there, ValueError when it is damaged, unsafe, or of other names or
    shapes than LLaVA-1.5's.
    """
    refuse_filled(destination)
    weights = HubWeights(source, WHAT, EXAMPLE)
    plan = plan_llava(source, weights.headers, tokenizer, tower)
    plan.report.check(str(source), f"a {WHAT}")
    with atomic_folder(destination, durable=True) as folder:
        write_llava(folder, plan, weights, shard)
    return plan.report


def plan_llava(folder: Path, headers: Mapping[str, Tensor], tokenizer: Path | None, tower: str | None) -> LlavaPlan:
    """What to write of the tensors of `folder`. Raises as `import_llava` does, but for the report."""
    base = read_base(folder)
    rows = len(headers[EMBEDDINGS]) if EMBEDDINGS in headers else 0
    if not rows:
        raise ValueError(f"checkpoint {folder} is not a {WHAT}: {EMBEDDINGS} is missing")
    vision, elsewhere = vision_tower(folder, base, headers, tower)
    config = llava_config(folder, base, vision, rows)
    words = _read_words(tokenizer or folder, rows, folder)
    expected = {name: shape for name, shape in _shapes(config, rows).items() if name not in elsewhere}
    names, report = ORIGINAL.account(headers, expected)
    if report.doubled:
        raise ValueError(f"checkpoint {folder}: {report.doubled[0]}")
    return LlavaPlan(config, words, names, elsewhere, report)


def write_llava(folder: Path, plan: LlavaPlan, weights: Mapping[str, Tensor], shard: str = SHARD) -> None:
    """Config, weights and tokenizer into a folder that is there. Not more than a shard is in memory."""
    rows, dtype = plan.config.text_config.vocab_size, weights[OUTPUT].dtype
    makers: dict[str, Callable[[], Tensor]] = {
        own: partial(_filled_up, weights, foreign, rows)
        if foreign in (EMBEDDINGS, OUTPUT)
        else partial(weights.__getitem__, foreign)
        for own, foreign in plan.names.items()
    }
    makers |= {own: partial(tensor.to, dtype) for own, tensor in plan.tower.items()}
    write_weights(folder, _Made(makers), plan.config, shard)
    write_tokenizer(folder, plan.words)


class _Made(Mapping[str, Tensor]):
    """Tensors that are made whenever they are asked for, and not kept."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _filled_up(weights: Mapping[str, Tensor], name: str, rows: int) -> Tensor:
    """(V, D) to (rows, D), all new rows the mean of the others, so that no new token is ever the likeliest."""
    matrix = weights[name]
    mean = matrix.mean(0, keepdim=True, dtype=torch.float32).to(matrix.dtype)
    return torch.cat([matrix, mean.expand(rows - len(matrix), -1)])


def _shapes(config: LlavaConfig, rows: int) -> dict[str, torch.Size]:
    """Of all tensors of the new folder, by our names; what has a row for every token as the file has it."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for foreign in (EMBEDDINGS, OUTPUT):
        (own,) = ORIGINAL.own(foreign)
        shapes[own] = torch.Size((rows, shapes[own][1]))
    return shapes


def _read_words(folder: Path, rows: int, source: Path) -> PreTrainedTokenizerBase:
    """The tokenizer with `ADDED`. Raises ValueError when the other tokens are more or fewer than `rows`."""
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
