"""The sentences of Text4Seg: questions and answers of our own, in the groups of the published templates.

`{}` stands for the prompt, or for the names of classes joined by "|". The form of a prompt decides about its group:

    the red mug             partial     an expression
    which of them can fly?  reasoning   a question, whose answer has labels roi0, roi1, …
    others|cat|grass        condition   class names: every pixel gets one of them
    "Describe the image."   text        in quotation marks: asked word for word, and no mask is expected
"""

from typing import Literal

import numpy as np
from torch import Tensor

from maskselect.codecs.labels import OTHERS
from maskselect.structures.codec import Codec
from maskselect.structures.groups import Query, QuestionGroup
from maskselect.structures.sample import MASK_REF

InstanceOrder = Literal["left_to_right", "given"]
"""Order of the instances in an answer: by the first column that they cover, then by the first row; or as given."""

Phrasing = Literal["sentences", "plain"]
"""`sentences`: the templates below. `plain`: the prompt and the masks alone, for compact models."""

QUESTIONS: dict[QuestionGroup, tuple[str, ...]] = {
    "partial": (
        "Segment only {} in this image.",
        "Where in the image is {}? Write its mask.",
        "Mark {} and leave out everything else.",
        "Show me the region of {}.",
        "Which part of the picture shows {}? Answer with a mask.",
        "Find {} and write the segmentation.",
    ),
    "condition": (
        "Segment the image into these classes: {}.",
        "Label every region with one of {}.",
        "The possible classes are {}. Write a segmentation of the image.",
        "Assign each part of the picture to one of: {}.",
        "Use only the labels {} and segment the whole image.",
        "Divide the image by the categories {}.",
    ),
    "all": (
        "Segment everything in this image and name it.",
        "Write a segmentation of the whole image with a label for each region.",
        "Which things does the image show, and where? Answer with masks.",
        "Name and mark all regions of the picture.",
    ),
    "reasoning": (
        "{} Answer with masks.",
        "{} Write the mask of each region that answers this.",
        "{} Mark the answer in the image.",
        "{} Number the regions and write their masks.",
    ),
}
ANSWERS = ("Here is the segmentation:", "The mask is:", "This is the region:", "Segmentation:")
NO_TARGET_ANSWERS = ("Nothing in the image matches.", "The image does not show that.")


def group_of(prompt: str) -> QuestionGroup:
    """The group of a prompt, by its form.

    >>> group_of("the red mug"), group_of("which can fly?"), group_of("others|cat"), group_of('"Describe it."')
    ('partial', 'reasoning', 'condition', 'text')
    """
    if len(prompt) > 2 and prompt[0] == prompt[-1] == '"' and '"' not in prompt[1:-1]:
        return "text"
    if listed_classes(prompt):
        return "condition"
    return "reasoning" if prompt.endswith("?") else "partial"


def listed_classes(prompt: str) -> tuple[str, ...]:
    """The classes that a prompt lists, without `others`; empty if it lists none.

    >>> listed_classes("others|cat|traffic light"), listed_classes("left | right")
    (('cat', 'traffic light'), ())
    """
    names = prompt.split("|")
    if len(names) < 2 or any(not name or name != name.strip() for name in names):
        return ()
    return tuple(name for name in names if name.casefold() != OTHERS)


def question(prompt: str, group: QuestionGroup, phrasing: Phrasing, rng: np.random.Generator | None) -> str:
    """The question for a prompt: a random one of its group, the first one without `rng`."""
    if group == "text":
        return prompt[1:-1]
    if phrasing == "plain":
        return prompt
    return _choice(QUESTIONS[group], rng).format(prompt)


def answer(masks: str, phrasing: Phrasing, rng: np.random.Generator | None) -> str:
    """The answer with masks written as text; "" is an answer without masks."""
    if phrasing == "plain":
        return masks
    return f"{_choice(ANSWERS, rng)}\n{masks}" if masks else _choice(NO_TARGET_ANSWERS, rng)


def written(
    query: Query,
    masks: Tensor,
    codec: Codec,
    label: str,
    phrasing: Phrasing,
    rng: np.random.Generator | None,
    order: InstanceOrder = "left_to_right",
) -> tuple[str, str]:
    """Question and answer of a query, as text.

    Args:
        query: the query.
        masks: its targets, (M, H, W) bool.
        codec: writes the masks.
        label: label of a mask whose query has no labels, see `labels_of`.
        phrasing: the sentences around prompt and masks.
        rng: draws the sentences; None takes the first ones.
        order: of the masks in the answer.

    Raises:
        ValueError: for a label that the codec cannot write, and for a query that lists classes or asks for words and
            has none.
    """
    group = query.group or group_of(query.text)
    expected = {"condition": query.labels, "text": query.answer}
    if expected.get(group, ()) is None:
        what = "the class of each target" if group == "condition" else "the words of the answer"
        raise ValueError(f"prompt {query.text[:60]!r} is of the group {group!r}; expected {what}")
    asked = question(query.text, group, phrasing, rng)
    if query.answer is not None:
        return asked, query.answer
    labels = labels_of(query.text, group, label, codec, len(masks)) if query.labels is None else list(query.labels)
    if order == "left_to_right":
        numbers = _left_to_right(masks)
        masks, labels = masks[numbers], labels and [labels[number] for number in numbers]
    return asked, answer(codec.encode(masks, labels), phrasing, rng)


def labels_of(prompt: str, group: QuestionGroup, label: str, codec: Codec, masks: int | None) -> list[str] | None:
    """Labels of `masks` masks that answer a prompt; None for the codec's own `roi0`, `roi1`, ….

    Args:
        prompt: the prompt.
        group: its group.
        label: "prompt" for the prompt itself, but the codec's own for reasoning if it has some; "region" for the
            codec's own; any other text for that text. Listed classes are their own labels.
        codec: writes the masks.
        masks: number of masks; None for the labels that may occur.
    """
    if group == "condition":
        return list(listed_classes(prompt))
    if label == "region" or group == "text" or (group == "reasoning" and label == "prompt" and codec.numbers_masks):
        return None
    name = prompt.replace(MASK_REF, "reference") if label == "prompt" else label
    return [name.lower()] * (1 if masks is None else masks)


def _left_to_right(masks: Tensor) -> list[int]:
    """The numbers of masks (M, H, W) bool by their first column, then by their first row."""
    corners = [masks.any(dim).int().argmax(-1).tolist() for dim in (1, 2)]
    return sorted(range(len(masks)), key=lambda number: (corners[0][number], corners[1][number]))


def _choice(sentences: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return sentences[0 if rng is None else int(rng.integers(len(sentences)))]
