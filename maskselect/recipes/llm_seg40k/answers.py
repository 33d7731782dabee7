"""Parses and checks a language model's questions about an image.

The checks are the rules of LLM-Seg (arXiv 2404.08767), section 4.2: the answer is one of the image's objects, the
question neither names nor locates it, and an object answers at most two questions. English only. A false refusal costs
little, so words with a second sense ("the right tool") are refused, too. Every refusal has a reason, and is counted.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

UNREADABLE = "unreadable"
NO_QUESTION = "no question"
NOT_LISTED = "answer not in the list"
NAMED = "question names the object"
LOCATED = "question locates the object"
DUPLICATE = "duplicate"
LENGTH = "too short or too long"
REPEATED = "answer of enough questions"
SURPLUS = "more than were asked for"
REASONS = (UNREADABLE, NO_QUESTION, NOT_LISTED, NAMED, LOCATED, DUPLICATE, LENGTH, REPEATED, SURPLUS)
"""Reasons to refuse a question, or ("unreadable") a whole reply."""

PLACES = (
    "left", "right", "top", "bottom", "middle", "center", "centre", "corner", "foreground", "background", "upper",
    "lower", "leftmost", "rightmost", "topmost", "bottommost", "nearest", "farthest", "furthest", "closest", "side",
    "edge", "next to", "close to", "near", "beside", "besides", "adjacent to", "behind", "in front of", "above",
    "below", "beneath", "underneath", "under the", "between", "to the side", "far away",
)  # fmt: skip
"""Words and phrases that locate something in an image."""

_IRREGULAR = {
    "men": "man", "people": "person", "children": "child", "feet": "foot", "teeth": "tooth", "geese": "goose",
    "mice": "mouse", "oxen": "ox",
}  # fmt: skip
_ARTICLES = ("a", "an", "the")
_BRACKETS = re.compile(r"[\[{]")
_MOST_TRIES = 200  # brackets at which parsing starts
_MOST_LETTERS = 100_000  # of a reply that are read
_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z]+\]")


@dataclass(frozen=True)
class Thing:
    """An object of an image.

    Attributes:
        name: as it is listed.
        also: its other names.
    """

    name: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """Limits of the questions.

    Attributes:
        most: questions an image.
        most_an_answer: questions of an image with the same answer.
        min_words: of a question.
        max_words: of a question.
    """

    most: int = 5
    most_an_answer: int = 2
    min_words: int = 5
    max_words: int = 60

    def __post_init__(self) -> None:
        if min(self.most, self.most_an_answer) < 1 or not 1 <= self.min_words <= self.max_words:
            raise ValueError(
                "most, most_an_answer and min_words must be at least 1, max_words not below min_words; "
                f"got {self.most}, {self.most_an_answer}, {self.min_words} and {self.max_words}"
            )


class Asked(NamedTuple):
    """A question that passed; the answer is a name as listed."""

    question: str
    answer: str


def read_reply(reply: str) -> list[Any] | None:
    """The entries of a reply; None if it has none.

    The reply holds a JSON list, an object with a list, or several objects, with any text or code fence around them.

    >>> read_reply('Here they are: ```json [{"question": "Why?", "answer": "cup"}] ```')
    [{'question': 'Why?', 'answer': 'cup'}]
    >>> read_reply("[{'question': 'Why?'}]") is None
    True
    """
    entries: list[Any] = []
    readable = False
    for value in _json_values(reply[:_MOST_LETTERS]):
        if (more := _entries(value)) is not None:
            readable = True
            entries += more
    return entries if readable else None


def check(entries: Iterable[Any], things: Sequence[Thing], rules: Rules) -> tuple[list[Asked], Counter[str]]:
    """The entries that pass, and the number of refused ones by reason; the first reason that applies counts.

    Args:
        things: all objects of the image.
    """
    kept: list[Asked] = []
    refused: Counter[str] = Counter()
    for entry in entries:
        result = _judged(entry, things, rules, kept)
        if isinstance(result, str):
            refused[result] += 1
        else:
            kept.append(result)
    return kept, refused


def listed(answer: str, things: Sequence[Thing]) -> Thing | None:
    """The object that an answer names, in any case, number and with any article; None unless it is exactly one.

    >>> listed("The Cups.", [Thing("cup"), Thing("saucer")])
    Thing(name='cup', also=())
    """
    forms = _joined_forms(answer)
    for same in (
        [thing for thing in things if thing.name.casefold() == answer.strip().casefold()],
        [thing for thing in things if _joined_forms(thing.name) & forms],
        [thing for thing in things if _joined_forms(_without_sense(thing.name)) & forms],
    ):
        if len(same) == 1:
            return same[0]
    return None


def names(question: str, thing: Thing) -> bool:
    """Whether a question contains a name of an object, in singular or plural, as one word or several.

    >>> names("Who hugs teddybears at night?", Thing("teddy bear"))
    True
    """
    spoken = words(question)
    known = [_without_sense(name) for name in (thing.name, *thing.also)]
    forms = frozenset().union(*(_joined_forms(name) for name in known))
    longest = max(len(words(name)) for name in known) + 1
    return any(
        _forms("".join(spoken[start : start + length])) & forms
        for start in range(len(spoken))
        for length in range(1, longest + 1)
    )


def locates(question: str) -> bool:
    """Whether a question contains one of PLACES."""
    spoken = f" {' '.join(words(question))} "
    return any(f" {place} " in spoken for place in PLACES)


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation and possessive 's."""
    return re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", text.casefold()))


def _judged(entry: Any, things: Sequence[Thing], rules: Rules, kept: list[Asked]) -> Asked | str:
    """The question of an entry, or the reason of its refusal."""
    if not isinstance(entry, dict):
        return UNREADABLE
    question = entry.get("question")
    question = " ".join(question.split()) if isinstance(question, str) else ""
    if not question.endswith("?") or not words(question):
        return NO_QUESTION
    if not question.isprintable() or _SPECIAL.search(question):  # such as `<mask-ref>`
        return UNREADABLE
    answer = entry.get("answer")
    thing = listed(answer, things) if isinstance(answer, str) else None
    if thing is None:
        return NOT_LISTED
    if not rules.min_words <= len(question.split()) <= rules.max_words:
        return LENGTH
    if names(question, thing):
        return NAMED
    if locates(question):
        return LOCATED
    if any(words(question) == words(other.question) for other in kept):
        return DUPLICATE
    if sum(other.answer == thing.name for other in kept) >= rules.most_an_answer:
        return REPEATED
    return Asked(question, thing.name) if len(kept) < rules.most else SURPLUS


def _json_values(text: str) -> Iterable[Any]:
    """Every JSON list and object in a text, the outermost ones, in order."""
    decoder, place = json.JSONDecoder(), 0
    for _ in range(_MOST_TRIES):
        if (bracket := _BRACKETS.search(text, place)) is None:
            return
        try:
            value, place = decoder.raw_decode(text, bracket.start())
        except (ValueError, RecursionError):
            place = bracket.end()
        else:
            yield value


def _entries(value: Any) -> list[Any] | None:
    """The entries of one JSON value; None if it has none, for example the [1] of a footnote."""
    if isinstance(value, list):
        return value if not value or any(isinstance(entry, dict) for entry in value) else None
    if "question" in value:
        return [value]
    lists = [more for inner in value.values() if isinstance(inner, list) and (more := _entries(inner)) is not None]
    return [entry for more in lists for entry in more] if lists else None


def _without_sense(name: str) -> str:
    """A name without the sense that LVIS appends in brackets."""
    return re.split(r"[ _]*\(", name)[0] or name


def _joined_forms(name: str) -> frozenset[str]:
    parts = words(name.replace("_", " "))
    return _forms("".join(parts[1:] if len(parts) > 1 and parts[0] in _ARTICLES else parts))


@lru_cache(maxsize=65536)
def _forms(word: str) -> frozenset[str]:
    """A word and its possible singulars. Some are not words, which is harmless: they are only compared."""
    forms = {word}
    for plural, singular in _IRREGULAR.items():
        if word.endswith(plural):
            forms.add(word.removesuffix(plural) + singular)
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        for ending, instead in (("es", ("",)), ("ies", ("y",)), ("ves", ("f", "fe"))):
            if word.endswith(ending):
                forms.update(word.removesuffix(ending) + end for end in instead)
    return frozenset(forms - {""})
