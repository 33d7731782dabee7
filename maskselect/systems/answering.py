"""The language model's text answer and the hidden state that predicts its `[SEG]` token.

In training the answer is given (teacher forcing); at inference it is generated. An answer without `[SEG]` has no state.

Shape letters: P prompts, R prompts of all images of a batch, D width.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.structures.generation import Generated, LogitsProcessor
from maskselect.systems.reading import Reader
from maskselect.systems.scoring import (
    ReadImages,
    behind_cache,
    in_passes,
    lay_out_prompts,
    prompt_hidden,
    repeated_cache,
)
from maskselect.tokens import sequence
from maskselect.tokens.sequence import PREFIX, PackedRows, Segment, Slot

LONGEST_ANSWER = 24
"""Maximum length of an answer in tokens."""

LookAhead = Callable[[list[Tensor], list[list[int]]], Tensor]
"""From `Answers.image_states` of P prompts, and the numbers of their image tokens, to (P, places, W) float32 by the
number of a place, see `Segment.ahead`."""


@dataclass(frozen=True)
class Answers:
    """One answer per prompt.

    Attributes:
        states: hidden states that predict `[SEG]`, (R, D); zeros for answers without it.
        has_seg: whether each answer contains `[SEG]`, (R,) bool.
        texts: generated texts; empty for given answers.
        loss: cross entropy of given answers; None for generated ones.
        accuracy: share of the tokens of given answers that are the most probable ones; None for generated ones.
        image_states: what `run` appends to the hidden states of image tokens after the prompt, for each answer (T, E);
            else None.
    """

    states: Tensor
    has_seg: Tensor
    texts: list[str]
    loss: Tensor | None = None
    accuracy: Tensor | None = None
    image_states: list[Tensor] | None = None


def forced_answers(
    reader: Reader,
    images: ReadImages,
    questions: list[list[str]],
    answers: list[list[str]],
    seg_id: int,
    in_loss: list[bool] | None = None,
    encode: Callable[[str], list[int]] | None = None,
    run: Callable[..., Tensor] | None = None,
    orders: list[list[int]] | None = None,
    cells: Callable[[list[int], int], list[int]] | None = None,
    ahead: LookAhead | None = None,
) -> Answers:
    """Read every question followed by its answer.

    Args:
        reader, images: the images that were read.
        questions: for each image its texts.
        answers: for each image the texts of the answers.
        seg_id: id of `[SEG]`.
        in_loss: for each answer whether it counts in the loss; None for all.
        encode: token ids of an answer; None for those of the tokenizer.
        run: replaces `lmm.hidden`; it may append E channels to the hidden states, see `Answers.image_states`.
        orders: for each image the tokens that are read after a prompt; None for all.
        cells: gives for the last tokens of an answer, so many, those of `Segment.cells`; None for none.
        ahead: gives those of `Segment.ahead` for the places of `cells`; questions are then read twice, first without
            gradients.

    Returns:
        One row for each image and question, in order.
    """
    end, encode = reader.lmm.tokenizer.eos_token_id, encode or reader.lmm.token_ids
    ids: list[list[int]] = []
    orders = [list(range(images.tokens.images.shape[1]))] * len(questions) if orders is None else orders
    asked = [
        [reader.question(prompt, order) for prompt in lay_out_prompts(reader, image_questions, prefix.end)]
        for prefix, image_questions, order in zip(images.prefixes, questions, orders, strict=True)
    ]
    read = [order for order, own in zip(orders, asked, strict=True) for _ in own]
    seen = _seen_ahead(reader, images, asked, read, run, ahead)
    parts: list[list[list[Segment]]] = []
    for own_questions, texts in zip(asked, answers, strict=True):
        parts.append([])
        for question, text in zip(own_questions, texts, strict=True):
            ids.append([*encode(text), end])
            count, start = len(ids[-1]), question[-1].end
            own = () if cells is None else cells(ids[-1], count)
            shown = None if seen is None else seen[len(ids) - 1, torch.tensor(own, dtype=torch.int64)]
            written = Segment([int(Slot.TEXT)] * count, ids[-1], list(range(start, start + count)), None, own, shown)
            parts[-1].append([*question, written])
    packed, hidden = prompt_hidden(reader, images, parts, "causal", run)
    rows, columns = torch.tensor(_predicting(images, parts), dtype=torch.int64, device=hidden.device).reshape(-1, 2).T
    width = reader.lmm.width
    states = hidden[rows, columns, :width]
    targets = torch.tensor([token for row in ids for token in row], dtype=torch.int64, device=hidden.device)
    owners = torch.tensor([n for n, row in enumerate(ids) for _ in row], dtype=torch.int64, device=hidden.device)
    counted = torch.tensor([True] * len(ids) if in_loss is None else in_loss, dtype=torch.bool, device=hidden.device)
    logits = reader.lmm.token_logits(states).float()
    errors = F.cross_entropy(logits, targets, reduction="none")
    loss = (errors * counted[owners]).sum() / counted[owners].sum().clamp(min=1)
    accuracy = (logits.argmax(-1) == targets).float().mean()
    image_states = None
    if reader.image_after_prompt and hidden.shape[-1] > width:
        image_states = _image_states(packed, hidden, width, read)
    first = _first_seg(states, targets == seg_id, owners, len(ids))
    return Answers(*first, [], loss, accuracy, image_states)


def _image_states(packed: PackedRows, hidden: Tensor, width: int, read: list[list[int]]) -> list[Tensor]:
    """What is appended to the D channels of image tokens after prompts; read: the tokens that follow each prompt."""
    in_prompt = (packed.kinds == Slot.IMAGE) & (packed.blocks != PREFIX)
    return list(hidden[in_prompt][:, width:].split(list(map(len, read))))


@torch.no_grad()
def _seen_ahead(
    reader: Reader,
    images: ReadImages,
    asked: list[list[list[Segment]]],
    read: list[list[int]],
    run: Callable[..., Tensor] | None,
    ahead: LookAhead | None,
) -> Tensor | None:
    """The result of `ahead` for all questions, on the CPU."""
    if ahead is None:
        return None
    packed, hidden = prompt_hidden(reader, images, asked, "causal", run)
    return ahead(_image_states(packed, hidden, reader.lmm.width, read), read).cpu()


def _predicting(images: ReadImages, parts: list[list[list[Segment]]]) -> list[tuple[int, int]]:
    """Row and column of every position whose state predicts a token of an answer, answer by answer.

    With a cache every question is a row; without one all questions of an image follow its prefix in one row.
    """
    places: list[tuple[int, int]] = []
    row = 0
    for image, prompts in enumerate(parts):
        start = 0 if images.cache is not None else len(images.prefixes[image])
        for *question, text in prompts:
            first = start + sum(map(len, question)) - 1
            number = row if images.cache is not None else image
            places += [(number, column) for column in range(first, first + len(text))]
            row += 1
            start = 0 if images.cache is not None else first + 1 + len(text)
    return places


def _first_seg(states: Tensor, is_seg: Tensor, owners: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The state of each answer's first `[SEG]`, and which answers have one."""
    places = is_seg.nonzero()[:, 0]
    seg_owners = owners[places]
    first = torch.ones_like(seg_owners, dtype=torch.bool)
    first[1:] = seg_owners[1:] != seg_owners[:-1]
    has_seg = torch.zeros(count, dtype=torch.bool, device=states.device)
    has_seg[seg_owners[first]] = True
    out = states.new_zeros(count, states.shape[1]).index_put((seg_owners[first],), states[places[first]])
    return out, has_seg


@torch.no_grad()
def generated_answers(
    reader: Reader, image: ReadImages, questions: list[str], references: Tensor, seg_id: int
) -> Answers:
    """Answer all questions about one image greedily, in batches.

    An answer ends at the end token, after its first `[SEG]`, or after `LONGEST_ANSWER` tokens.

    Args:
        reader, image, questions, references: see `Scorer.answer`.
        seg_id: id of `[SEG]`.
    """
    parts = [_generate(reader, held, some, seg_id) for some, held in in_passes(image, questions, references)]
    states, has_seg = torch.cat([part.states for part in parts]), torch.cat([part.has_seg for part in parts])
    return Answers(states, has_seg, [text for part in parts for text in part.texts])


def _generate(reader: Reader, image: ReadImages, questions: list[str], seg_id: int) -> Answers:
    generated = generate_texts(reader, image, questions, LONGEST_ANSWER, stop=(seg_id,))
    device = image.tokens.images.device
    has_seg = torch.tensor([ids[-1:] == [seg_id] for ids in generated.ids], dtype=torch.bool, device=device)
    none = torch.zeros(reader.lmm.width, dtype=torch.float32, device=device)
    rows = zip(generated.states, has_seg.tolist(), strict=True)
    states = torch.stack([row[-1] if seg else none for row, seg in rows])
    return Answers(states, has_seg, [reader.lmm.decode(ids) for ids in generated.ids])


def generate_texts(
    reader: Reader,
    image: ReadImages,
    questions: list[str],
    longest: int,
    stop: Collection[int] = (),
    process: LogitsProcessor | None = None,
    cells: Callable[[list[int], int], list[int]] | None = None,
    run: Callable[..., Tensor] | None = None,
    ahead: LookAhead | None = None,
) -> Generated:
    """Answer questions about one image greedily, in one batch.

    Args:
        reader, image: the image that was read, with the references of these questions.
        questions: their texts.
        longest: maximum length of an answer in tokens.
        stop, process: see `LanguageModel.generate`.
        cells: see `forced_answers`.
        run: see `forced_answers`; for image tokens after the prompt.
        ahead: see `forced_answers`.

    Raises:
        ValueError: for an image that was read with gradients.
    """
    if image.cache is None:
        raise ValueError("generating needs an image that was read without gradients")
    device = image.tokens.images.device
    owners = torch.zeros(len(questions), dtype=torch.long, device=device)
    prompts = lay_out_prompts(reader, questions, image.prefixes[0].end)
    rows = [reader.question(prompt, list(range(image.tokens.images.shape[1]))) for prompt in prompts]
    # Image tokens after the prompt attend to each other, so all but the last segment are read before generation.
    cache = repeated_cache(reader, image.cache, owners)
    before = [torch.ones(len(questions), len(image.prefixes[0]), dtype=torch.bool, device=device)]
    image_states = None
    if reader.image_after_prompt:
        read = sequence.pack([(None, [row[:-1]]) for row in rows]).to(device)
        embeddings, visible, positions, cache = behind_cache(reader, image, read, owners, "causal")
        hidden = (run or reader.lmm.hidden)(embeddings, visible, positions, cache)
        if run is not None:
            image_states = list(hidden[read.kinds == Slot.IMAGE][:, reader.lmm.width :].chunk(len(questions)))
        before.append(read.kinds != Slot.PAD)
    packed = sequence.pack([(None, [row[-1:]]) for row in rows]).to(device)

    seen = None
    if ahead is not None and image_states is not None:
        seen = ahead(image_states, [list(range(image.tokens.images.shape[1]))] * len(questions))

    def add(ids: list[list[int]]) -> Tensor:
        assert cells is not None
        last = torch.tensor([cells(row, 1)[0] if row else 0 for row in ids], dtype=torch.int64, device=device)
        return reader.places(last, None if seen is None else seen[torch.arange(len(last), device=device), last])

    generated = reader.lmm.generate(
        reader.embed(packed, image.tokens, owners),
        longest,
        valid=packed.kinds != Slot.PAD,
        positions=packed.positions,
        process=process,
        stop=stop,
        cache=cache,
        before=torch.cat(before, 1),
        add=None if cells is None else add,
    )
    return replace(generated, image_states=image_states)
