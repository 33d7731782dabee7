"""Labels as codecs write them."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

OTHERS = "others"

LabelRule = Literal["clean", "reject"]
"""What happens to a label that contains a separator of the text format.

clean: the separator becomes a space. The paper is silent; published data contain such expressions.
reject: ValueError.
"""

_TAGS = re.compile(r"</?(?:ref|box|seg)>")
_SEPARATORS = re.compile(rf"\||(?<=\s)\*|{_TAGS.pattern}")


@lru_cache(1 << 14)
def written(label: str, rule: LabelRule = "clean") -> str:
    """A label as the text holds it: single spaces, no separator.

    Raises:
        ValueError: for an empty label, for `others`, and for a separator where the rule is `reject`.
    """
    words = " ".join(label.split())
    if words != label or _SEPARATORS.search(words) or words[:1] == "*":
        if rule == "reject":
            raise ValueError(
                f"label {label[:60]!r} contains a separator of the text format, or space that is not single"
            )
        while _SEPARATORS.search(words) or words[:1] == "*":
            words = " ".join(_SEPARATORS.sub(" ", words).lstrip("*").split())
    if not words or words.casefold() == OTHERS:
        raise ValueError(f"label {label[:60]!r} is empty or {OTHERS!r}, which names what is not selected")
    return words


@lru_cache(1 << 14)
def is_written(word: str) -> bool:
    """Whether `written` returns the word as it is."""
    try:
        return written(word) == word
    except ValueError:
        return False


@lru_cache(1 << 14)
def normal(word: str) -> str:
    """What two spellings of a label have in common: case and space are ignored."""
    return " ".join(word.casefold().split())


class Vocabulary:
    """The labels that a text may contain: exact spelling first, then normalised; None for any label.

    names: the labels found so far, or all expected ones.  replaced, unknown: words that needed it.
    """

    def __init__(self, expected: Sequence[str] | None, rule: LabelRule) -> None:
        self.open = expected is None
        self.names = [] if expected is None else [written(label, rule) for label in expected]
        self.exact = {name: number for number, name in reversed(list(enumerate(self.names, 1)))}
        self.normal = {normal(name): number for name, number in reversed(self.exact.items())}
        self.replaced: dict[str, int] = {}
        self.unknown: dict[str, None] = {}

    def number(self, word: str) -> int | None:
        """The label number of a word, 0 for `others`; None for an unknown word, which is recorded."""
        if normal(word) == OTHERS:
            return 0
        if word in self.exact:
            return self.exact[word]
        if self.open:
            try:
                name = written(word)
            except ValueError:
                self.unknown[word] = None
                return None
            if name not in self.exact:
                self.names.append(name)
                self.exact[name] = len(self.names)
            return self.exact[name] if name == word else self.replaced.setdefault(word, self.exact[name])
        if normal(word) in self.normal:
            return self.replaced.setdefault(word, self.normal[normal(word)])
        self.unknown[word] = None
        return None
