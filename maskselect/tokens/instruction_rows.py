"""The token rows of InstructSeg (arXiv 2412.14006, section 3.1).

Each prompt has a row, or all prompts of a picture share a prefix:

    published            USER: … [perceiver tokens] … [image tokens] … [instruction] ASSISTANT: … [mask tokens]
    shared_image         USER: … [image tokens] …  |  [perceiver tokens] … [instruction] ASSISTANT: … [mask tokens]
    image_after_prompt   USER: …  |  [instruction] … [perceiver tokens] … [image tokens] ASSISTANT: … [mask tokens]

`published` is the published order; perceiver tokens depend on the prompt, so every prompt has a row of its own, and all
attention is causal. The others are ours. What precedes the bar is a prefix that runs once for all prompts of a picture.
Image tokens after a prompt attend to each other both ways (`tokens/sequence.py`).

The instruction is the prompt and the token `[SEG]`. The answer, which is given and not generated, holds another `[SEG]`
and the mask tokens.

The order within a row comes from its wording, where `<temporal>`, `<image>`, `<refer>` and `<seg>` stand for tokens.
The wordings of this file are our own. A published checkpoint needs the exact wording that it was trained with.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from maskselect.structures.protocols import LanguageModel
from maskselect.tokens import sequence
from maskselect.tokens.sequence import Segment, Slot

RowLayout = Literal["published", "shared_image", "image_after_prompt"]
Visual = Literal["image", "clip"]
Request = Literal["referring", "reasoning", "plain"]
"""Kinds of requests: a description of the target, a question about it, or no request at all, for compact models."""

SEG = "[SEG]"
"""The token at the end of instruction and answer."""

TEMPORAL, IMAGE, REFER, MASKS = "<temporal>", "<image>", "<refer>", "<seg>"
"""Stand for perceiver tokens, image tokens, the instruction and mask tokens in a wording."""

_LOOK = {"image": "Look at this picture:", "clip": "Look at this video frame, and at frames near it:"}
_REQUEST = {
    "referring": "Mark whatever this text describes:",
    "reasoning": "Find out what the answer to this question is, and mark it:",
}
_ANSWER = f"This is marked: {SEG}{MASKS}"


@dataclass(frozen=True)
class Wording:
    """The text of a row around its tokens.

    Attributes:
        question: the user's turn, with `<temporal>`, `<image>` and `<refer>`, once each.
        answer: the answer, with `<seg>` once and perhaps `[SEG]`.

    Raises:
        ValueError: if a placeholder is missing, or there is more than one of a kind.
    """

    question: str
    answer: str

    def __post_init__(self) -> None:
        for place, text, name in (
            (TEMPORAL, self.question, "question"),
            (IMAGE, self.question, "question"),
            (REFER, self.question, "question"),
            (MASKS, self.answer, "answer"),
        ):
            if text.count(place) != 1:
                raise ValueError(f"{name} {text!r} has {text.count(place)} times {place}; expected it once")


def own_wording(layout: RowLayout, visual: Visual, request: Request) -> Wording:
    """Our wording for a layout. "plain" has placeholders and line breaks only, and is the same for both visuals."""
    if request == "plain":
        orders = {
            "published": (TEMPORAL, IMAGE, REFER),
            "shared_image": (IMAGE, TEMPORAL, REFER),
            "image_after_prompt": (REFER, TEMPORAL, IMAGE),
        }
        return Wording("\n".join(orders[layout]), f"{SEG}{MASKS}")
    look, ask = _LOOK[visual], _REQUEST[request]
    questions = {
        "published": f"{look} {TEMPORAL}\n{IMAGE}\n{ask}\n{REFER}",
        "shared_image": f"{look} {IMAGE}\n{TEMPORAL}\n{ask}\n{REFER}",
        "image_after_prompt": f"{ask}\n{REFER}\n{look} {TEMPORAL}\n{IMAGE}",
    }
    return Wording(questions[layout], _ANSWER)


class InstructionRows:
    """Lays out the rows of one kind of request.

    Args:
        lmm: the language model, which gets the token `[SEG]`.
        wording: the text of a row.
        layout: see above.
        masks: number of mask tokens.
        ref_pre: whether references have a pre-token.

    Attributes:
        seg_id: id of `[SEG]`.
        has_prefix: whether the layout has a prefix.

    Raises:
        ValueError: if the order of the wording does not fit the layout, or image tokens on grids have no prefix.
    """

    def __init__(
        self, lmm: LanguageModel, wording: Wording, layout: RowLayout, masks: int, ref_pre: bool = False
    ) -> None:
        _check_order(wording.question, layout)
        self.has_prefix = layout != "published"
        if lmm.images_on_grids and layout != "shared_image":
            raise ValueError(
                f"a language model that puts image tokens on grids reads them in a prefix; expected layout "
                f"'shared_image' instead of {layout!r}"
            )
        self._lmm, self._masks, self._ref_pre, self._after = lmm, masks, ref_pre, layout == "image_after_prompt"
        self.seg_id = lmm.add_token(SEG)
        chat = lmm.chat(False)
        question = re.split(f"({TEMPORAL}|{IMAGE}|{REFER})", wording.question)
        split = 3 if layout == "shared_image" else 1  # its prefix holds <image> and the text around it
        self._begin = [*chat.begin, *self._ids(question[0], first=True)]
        self._after_image = self._ids(question[2]) if layout == "shared_image" else []
        self._rest: list[str | list[int]] = [
            part if part in (TEMPORAL, IMAGE, REFER) else self._ids(part) for part in question[split:]
        ]
        self._closing = chat.closing
        self._answer = [*self._parts(wording.answer)]

    def _ids(self, text: str, first: bool = False) -> list[int]:
        """Token ids of a text without placeholders; the first one of a turn follows a space."""
        return self._lmm.token_ids(f" {text}" if first else text) if text else []

    def _parts(self, answer: str) -> Iterator[list[int] | str]:
        """Token ids of the answer, and `MASKS`."""
        for number, text in enumerate(re.split(f"({re.escape(SEG)}|{MASKS})", answer)):
            if text == MASKS:
                yield text
            else:
                yield [self.seg_id] if text == SEG else self._ids(text, first=number == 0)

    def prefix(self, image_tokens: int, grid: tuple[int, int] | None = None) -> Segment | None:
        """What all prompts of a picture share; None for the published layout.

        Args:
            image_tokens: number of image tokens, which only the prefix of `shared_image` holds.
            grid: their rows and columns, for positions on a grid.
        """
        if not self.has_prefix:
            return None
        count = 0 if self._after else image_tokens
        return sequence.prefix_segment(self._begin, count, [], False, [], self._after_image, grid)

    def instruction(self, text: str, start: int, first_reference: int = 0) -> Segment:
        """The instruction of a prompt: its text with references in place, then `[SEG]`.

        Args:
            text: the prompt.
            start: position of the first token.
            first_reference: index of its first reference among those of all prompts of the row.
        """
        pieces = [self._ids(piece) for piece in sequence.split_prompt(text)]
        plain = sequence.prompt_segment(pieces, self._ref_pre, [self.seg_id], start, first_reference)
        kinds = [int(Slot.INSTRUCTION) if kind == Slot.TEXT else kind for kind in plain.kinds]
        return Segment(kinds, plain.values, plain.positions)

    def prompt(
        self,
        text: str,
        start: int,
        image_tokens: int,
        temporal: int,
        first_temporal: int = 0,
        first_reference: int = 0,
        reply: str = "",
    ) -> list[Segment]:
        """The segments of a prompt, from the prefix on to the end token.

        The published layout gives one segment, a whole row that is packed as a prefix without prompts.

        Args:
            text: the prompt.
            start: first position after the prefix, `Segment.end`; 0 without one.
            image_tokens: number of image tokens of the picture.
            temporal: number of perceiver tokens; 0 without a perceiver.
            first_temporal: index of the first of them among those of all prompts of the row.
            first_reference: index of its first reference among those of all prompts of the row.
            reply: words that replace those of the wording before `[SEG]` and the mask tokens, such as an explanation.

        Raises:
            ValueError: if the row does not fit into the language model's context.
        """
        segments: list[Segment] = []

        def add(kind: Slot, values: list[int]) -> None:
            first = segments[-1].end if segments else start
            if values:
                segments.append(Segment([int(kind)] * len(values), values, list(range(first, first + len(values)))))

        if not self.has_prefix:
            add(Slot.TEXT, self._begin)
        for part in self._rest:
            first = segments[-1].end if segments else start
            if part == REFER:
                segments.append(self.instruction(text, first, first_reference))
            elif part == TEMPORAL:
                add(Slot.TEMPORAL, list(range(first_temporal, first_temporal + temporal)))
            elif part == IMAGE and self._after:
                segments.append(sequence.image_segment(list(range(image_tokens)), first))
            elif part == IMAGE:
                add(Slot.IMAGE, list(range(image_tokens)))
            elif isinstance(part, list):
                add(Slot.TEXT, part)
        add(Slot.TEXT, self._closing)
        worded = [self._ids(reply, first=True), [self.seg_id], MASKS]
        for piece in worded if reply else self._answer:
            if isinstance(piece, list):
                add(Slot.REPLY, piece)
            else:
                add(Slot.MASK_QUERY, list(range(self._masks)))
        add(Slot.REPLY, [self._lmm.tokenizer.eos_token_id])
        if segments[-1].end > self._lmm.max_positions:
            raise ValueError(
                f"prompt makes a row of {segments[-1].end} positions, but the language model's context has "
                f"{self._lmm.max_positions}"
            )
        return segments if self.has_prefix else [_joined(segments)]


def _check_order(question: str, layout: RowLayout) -> None:
    """Raise ValueError if the wording's order does not fit the layout."""
    temporal, image, refer = (question.index(place) for place in (TEMPORAL, IMAGE, REFER))
    if layout == "shared_image" and image > min(temporal, refer):
        raise ValueError(f"layout 'shared_image' reads the image first; expected {IMAGE} first in {question!r}")
    if layout == "image_after_prompt" and refer > image:
        raise ValueError(
            f"layout 'image_after_prompt' reads the image after the prompt; expected {REFER} before {IMAGE} in "
            f"{question!r}"
        )


def _joined(segments: list[Segment]) -> Segment:
    """One segment of several."""
    return Segment(
        [kind for s in segments for kind in s.kinds],
        [value for s in segments for value in s.values],
        [position for s in segments for position in s.positions],
    )
