"""How LLM-Seg asks and answers: the sentences that its released model was trained with (interface constants).

A noun phrase and a whole sentence are asked differently. Answers hold `[SEG]`; where nothing is meant, ours says so
without it, which the paper has no words for.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Phrasing = Literal["published", "plain"]
"""`published`: the sentences below. `plain`: the prompt as it is, and an answer of one word, for compact models, which
would spend most of their time on reading the same sentences."""

SEG = "[SEG]"
"""The token whose hidden state stands for what is asked for."""

PHRASE_QUESTIONS = (
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)
SENTENCE_QUESTIONS = ("{} Please respond with segmentation mask.", "{} Please output segmentation mask.")
ANSWERS = (
    f"It is {SEG}.",
    f"Sure, {SEG}.",
    f"Sure, it is {SEG}.",
    f"Sure, the segmentation result is {SEG}.",
    f"{SEG}.",
)
NO_TARGET_ANSWERS = ("It is not there.", "Sorry, nothing here is that.")
PLAIN_ANSWERS = (SEG, "none")

_ASKING = ("what", "which", "who", "where", "when", "why", "how", "find", "show", "segment", "select", "give", "please")
# Not "can", "is" or "point", with which noun phrases begin too ("can on left")


def is_sentence(text: str) -> bool:
    """Whether a prompt is a question or a request, not a noun phrase: by its last sign and its first word."""
    words = text.strip().lower().split()
    return text.rstrip().endswith(("?", ".", "!")) or (bool(words) and words[0].strip(",") in _ASKING)


def ask(text: str, rng: np.random.Generator | None = None, phrasing: Phrasing = "published") -> str:
    """The question for a prompt: one of the published ones at random, or, without `rng`, the one of their
    validation."""
    text = " ".join(text.split())
    if phrasing == "plain":
        return text
    if is_sentence(text):
        return _pick(SENTENCE_QUESTIONS, rng).format(text)
    return _pick(PHRASE_QUESTIONS, rng).format(text.lower())


def answer(any_target: bool, rng: np.random.Generator | None = None, phrasing: Phrasing = "published") -> str:
    """What the model shall say; without `rng` the answer of the teacher-forced protocol."""
    if phrasing == "plain":
        return PLAIN_ANSWERS[0 if any_target else 1]
    return _pick(ANSWERS if any_target else NO_TARGET_ANSWERS, rng)


def _pick(choices: Sequence[str], rng: np.random.Generator | None) -> str:
    return choices[-1] if rng is None else choices[int(rng.integers(len(choices)))]
