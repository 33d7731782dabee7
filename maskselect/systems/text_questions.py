"""The sentences of Text4Seg: questions and answers of our own, in the groups of the published templates.

`{}` stands for the prompt, or for the names of classes joined by "|". The form of a prompt decides about its group:

    the red mug             partial     an expression
    which of them can fly?  reasoning   a question, whose answer has labels roi0, roi1, …
    others|cat|grass        condition   class names: every pixel gets one of them
    "Describe the image."   text        in quotation marks: asked word for word, and no mask is expected
"""

from typing import Literal

import numpy as np

from maskselect.codecs.labels import OTHERS

Phrasing = Literal["sentences", "plain"]
"""`sentences`: the templates below. `plain`: the prompt and the masks alone, for compact models."""

Group = Literal["partial", "condition", "all", "reasoning", "text"]
"""`partial`: one expression. `condition`: all of the listed classes. `all`: classes are not given. `reasoning`: a
question that masks answer. `text`: a question that words answer."""

QUESTIONS: dict[Literal["partial", "condition", "all", "reasoning"], tuple[str, ...]] = {
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


def group_of(prompt: str) -> Group:
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


def question(prompt: str, group: Group, phrasing: Phrasing, rng: np.random.Generator | None) -> str:
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


def _choice(sentences: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return sentences[0 if rng is None else int(rng.integers(len(sentences)))]
