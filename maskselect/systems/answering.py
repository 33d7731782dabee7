"""The language model's answer in words, and the hidden state that predicts `[SEG]` in it.

Two ways to one state for each prompt: in training the answer is given (teacher forcing), at inference it is generated,
and a prompt whose answer holds no `[SEG]` has none.

Shape letters: P prompts, R prompts of all images of a batch, D width.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.systems.reading import Reader
from maskselect.systems.scoring import (
    ReadImages,
    in_passes,
    lay_out_prompts,
    prompt_hidden,
    repeated_cache,
)
from maskselect.tokens import sequence
from maskselect.tokens.sequence import Segment, Slot

LONGEST_ANSWER = 24
"""Tokens after which an answer is cut."""


@dataclass(frozen=True)
class Answers:
    """One answer a prompt.

    states: (R, D), the hidden state from which `[SEG]` is predicted; zeros where `found` is False.
    found: (R,) bool, whether the answer holds `[SEG]`.
    texts: the generated words, empty for given answers.  loss: cross entropy of given answers, None for generated ones.
    """

    states: Tensor
    found: Tensor
    texts: list[str]
    loss: Tensor | None = None


def given_answers(
    reader: Reader,
    images: ReadImages,
    questions: list[list[str]],
    answers: list[list[str]],
    seg_id: int,
    meant: list[bool] | None = None,
) -> Answers:
    """Read every question with its answer behind it; one row an image and question, in order.

    questions, answers: for each image its texts.
    meant: for each row whether its answer counts in the loss; None for all.
    """
    end = reader.lmm.tokenizer.eos_token_id
    parts: list[list[list[Segment]]] = []
    ids: list[list[int]] = []
    for prefix, asked, answered in zip(images.prefixes, questions, answers, strict=True):
        parts.append([])
        for question, text in zip(lay_out_prompts(reader, asked, prefix.end), answered, strict=True):
            ids.append([*reader.lmm.token_ids(text), end])
            places = list(range(question.end, question.end + len(ids[-1])))
            parts[-1].append([question, Segment([int(Slot.TEXT)] * len(ids[-1]), ids[-1], places)])
    _, hidden = prompt_hidden(reader, images, parts, "causal")
    rows, columns = _predicting(images, parts)
    states = hidden[
        torch.tensor(rows, dtype=torch.int64, device=hidden.device),
        torch.tensor(columns, dtype=torch.int64, device=hidden.device),
    ]
    wanted = torch.tensor([token for row in ids for token in row], dtype=torch.int64, device=hidden.device)
    owners = torch.tensor([row for row, own in enumerate(ids) for _ in own], dtype=torch.int64, device=hidden.device)
    counted = torch.tensor([True] * len(ids) if meant is None else meant, dtype=torch.bool, device=hidden.device)[
        owners
    ]
    errors = F.cross_entropy(reader.lmm.token_logits(states).float(), wanted, reduction="none")
    loss = (errors * counted).sum() / counted.sum().clamp(min=1)
    return Answers(*_first_seg(states, wanted == seg_id, owners, len(ids)), [], loss)


def _predicting(images: ReadImages, parts: list[list[list[Segment]]]) -> tuple[list[int], list[int]]:
    """Row and column of every position whose state predicts a token of an answer, answer by answer.

    With a cache every question has a row of its own; without, those of an image stand behind its prefix in one.
    """
    rows: list[int] = []
    columns: list[int] = []
    row = 0
    for image, prompts in enumerate(parts):
        start = 0 if images.cache is not None else len(images.prefixes[image])
        for question, text in prompts:
            first = start + len(question) - 1
            columns += range(first, first + len(text))
            rows += [row if images.cache is not None else image] * len(text)
            row += 1
            start = 0 if images.cache is not None else first + 1 + len(text)
    return rows, columns


def _first_seg(states: Tensor, is_seg: Tensor, owners: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The state of each answer's first `[SEG]`, and which answers have one."""
    found = torch.zeros(count, dtype=torch.bool, device=states.device)
    places = is_seg.nonzero()[:, 0]
    own = owners[places]
    first = torch.ones_like(own, dtype=torch.bool)
    for place, (before, now) in enumerate(pairwise(own.tolist()), 1):
        first[place] = before != now
    found[own[first]] = True
    out = states.new_zeros(count, states.shape[1]).index_put((own[first],), states[places[first]])
    return out, found


@torch.no_grad()
def generated_answers(
    reader: Reader, image: ReadImages, questions: list[str], references: Tensor, seg_id: int
) -> Answers:
    """Answer every question about one image greedily, side by side.

    references: (R, D) tokens of the reference masks of all questions, in order.
    An answer ends at the end token, behind its first `[SEG]`, or after `LONGEST_ANSWER` tokens.
    """
    parts = [_generate(reader, held, some, seg_id) for some, held in in_passes(image, questions, references)]
    states, found = (torch.cat([getattr(part, name) for part in parts]) for name in ("states", "found"))
    return Answers(states, found, [text for part in parts for text in part.texts])


def _generate(reader: Reader, image: ReadImages, questions: list[str], seg_id: int) -> Answers:
    if image.cache is None:
        raise ValueError("generating needs an image that was read without gradients")
    device = image.tokens.images.device
    owners = torch.zeros(len(questions), dtype=torch.long, device=device)
    segments = lay_out_prompts(reader, questions, image.prefixes[0].end)
    packed = sequence.pack([(None, [[segment]]) for segment in segments]).to(device)
    written = reader.lmm.generate(
        reader.embed(packed, image.tokens, owners),
        LONGEST_ANSWER,
        valid=packed.kinds != Slot.PAD,
        positions=packed.positions,
        stop=(seg_id,),
        cache=repeated_cache(reader, image.cache, owners),
        before=torch.ones(len(questions), len(image.prefixes[0]), dtype=torch.bool, device=device),
    )
    found = torch.tensor([ids[-1:] == [seg_id] for ids in written.ids], dtype=torch.bool, device=device)
    none = torch.zeros(reader.lmm.width, dtype=torch.float32, device=device)
    last = zip(written.states, found.tolist(), strict=True)
    states = torch.stack([own[-1] if seg else none for own, seg in last])
    return Answers(states, found, [reader.lmm.decode(ids) for ids in written.ids])
