"""Questions and answers of LLM-Seg: the sentences of its released model's training (interface constants).

Noun phrases and whole sentences have different templates. Answers contain `[SEG]`. The answers for no-target prompts,
without `[SEG]`, are our addition.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Phrasing = Literal["published", "plain"]
"""`published`: the sentences below. `plain`: the prompt itself and an answer of one word, for compact models."""

SEG = "[SEG]"
"""The token whose hidden state represents the target."""

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
# Not "can", "is" or "point", because noun phrases begin with them, too ("can on left").


def is_sentence(text: str) -> bool:
    """Whether a prompt is a question or request instead of a noun phrase, by its last character and first word."""
    words = text.strip().lower().split()
    return text.rstrip().endswith(("?", ".", "!")) or (bool(words) and words[0].strip(",") in _ASKING)


def ask(text: str, rng: np.random.Generator | None = None, phrasing: Phrasing = "published") -> str:
    """The question for a prompt: a random published one, or without `rng` that of the published validation."""
    text = " ".join(text.split())
    if phrasing == "plain":
        return text
    if is_sentence(text):
        return _pick(SENTENCE_QUESTIONS, rng).format(text)
    return _pick(PHRASE_QUESTIONS, rng).format(text.lower())


def answer(any_target: bool, rng: np.random.Generator | None = None, phrasing: Phrasing = "published") -> str:
    """The target answer: a random one, or without `rng` that of the teacher-forced protocol."""
    if phrasing == "plain":
        return PLAIN_ANSWERS[0 if any_target else 1]
    return _pick(ANSWERS if any_target else NO_TARGET_ANSWERS, rng)


def _pick(choices: Sequence[str], rng: np.random.Generator | None) -> str:
    return choices[-1] if rng is None else choices[int(rng.integers(len(choices)))]
