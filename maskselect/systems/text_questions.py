"""The sentences of Text4Seg: questions and answers of our own, in the groups of the published templates.

`{}` stands for the prompt, or for the names of classes joined by "|".
"""

from typing import Literal

import numpy as np

Phrasing = Literal["sentences", "plain"]
"""`sentences`: the templates below. `plain`: the prompt and the masks alone, for compact models."""

Group = Literal["partial", "condition", "all"]
"""`partial`: one expression or some classes. `condition`: all of the listed classes. `all`: classes are not given."""

QUESTIONS: dict[Group, tuple[str, ...]] = {
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
}
ANSWERS = ("Here is the segmentation:", "The mask is:", "This is the region:", "Segmentation:")
NO_TARGET_ANSWERS = ("Nothing in the image matches.", "The image does not show that.")


def question(prompt: str, group: Group, phrasing: Phrasing, rng: np.random.Generator | None) -> str:
    """The question for a prompt: a random one of its group, the first one without `rng`."""
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
