"""Captions and short dialogues about a scene; the predicates of the prompts make them true."""

import random

import numpy as np

from maskselect.scenes.facts import CORNERS, SIDES, Judge, SceneFacts, bits
from maskselect.scenes.phrases import NUMBERS
from maskselect.scenes.sentences import article, plural
from maskselect.scenes.spec import HELD_OUT_PAIRS

_PLACES = (*CORNERS, "middle", *SIDES)
_AT = {"middle": "in the middle", "left": "on the left", "right": "on the right"}
_COVERING = ("containing", "under", "in front of")
_RELATIONS = ("inside", "on", "behind", "touching", "left of", "right of", "above", "below")


def draw_caption(facts: SceneFacts, rng: np.random.Generator) -> str:
    """A caption of the whole scene: its objects, their positions, their relations, or their counts."""
    teller = _Teller(facts, random.Random(int(rng.integers(2**63))))
    describe = teller.rng.choice((teller.list, teller.positions, teller.relations, teller.counts))
    return describe() if facts.count else "an empty picture"


def draw_dialogue(facts: SceneFacts, rng: np.random.Generator, count: int = 3) -> list[tuple[str, str]]:
    """At most `count` different questions about the scene, with short answers."""
    teller = _Teller(facts, random.Random(int(rng.integers(2**63))))
    questions = (teller.ask_attribute, teller.ask_count, teller.ask_place, teller.ask_presence, teller.ask_where)
    turns: dict[str, str] = {}
    for _ in range(8 * count if facts.count else 0):
        if len(turns) == count:
            break
        turn = teller.rng.choice(questions)()
        if turn is not None:
            turns.setdefault(*turn)
    return list(turns.items())


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


class _Teller:
    """Describes one scene."""

    def __init__(self, facts: SceneFacts, rng: random.Random) -> None:
        self.facts, self.rng, self.judge = facts, rng, Judge(facts)
        x, y = facts.centroid_xy.T
        self.order = [int(k) for k in np.lexsort((y, x))]  # from left to right, then from top to bottom

    def full(self, k: int) -> str:
        """All attributes; the defaults "medium" and "plain" are often left out."""
        category, colour, texture, size = self.facts.words(k)
        words = [size] if size != "medium" or self.rng.random() < 0.3 else []
        words += [texture] if texture != "plain" or self.rng.random() < 0.4 else []
        return " ".join([*words, colour, category])

    def short(self, k: int) -> str:
        """Colour and category."""
        category, colour, _, _ = self.facts.words(k)
        return f"{colour} {category}"

    def place(self, k: int) -> str:
        """The clear position of an object, or ""."""
        for word in _PLACES:
            if self.judge.position(word)[0] >> k & 1:
                return _AT.get(word, f"at the {word}")
        return ""

    def unique(self, k: int) -> str:
        """A short description of this object only, or ""."""
        category, colour, _, size = self.facts.words(k)
        options = [(category,), (colour, category)] + [(size, category), (size, colour, category)] * (size != "medium")
        for words in options:
            members = self.judge.all
            for word in words:
                members &= self.judge.attribute(word)[0]
            if members == 1 << k:
                return " ".join(words)
        return ""

    def related(self, k: int) -> str:
        """A relation to another object with a unique description, intended relations first; or ""."""
        others = [o for o in range(self.facts.count) if o != k and self.unique(o)]
        self.rng.shuffle(others)
        for words in (_RELATIONS[:4], self.rng.sample(_RELATIONS[4:], 4)):
            for word in words:
                for other in others:
                    # An object in, on or in front of another touches it, too, but people do not say so.
                    if word == "touching" and any(self.judge.relation(w, other)[0] >> k & 1 for w in _COVERING):
                        continue
                    if self.judge.relation(word, other)[0] >> k & 1:
                        return f"{word} the {self.unique(other)}"
        return ""

    def list(self) -> str:
        items = _joined([article(self.full(k)) for k in self.order])
        count = self.facts.count
        start = f"there are {_number(count)} objects: " if count > 1 else "there is one object: "
        return self.rng.choice((start, start, "from left to right: ", "the picture shows ", "")) + items

    def positions(self) -> str:
        groups: dict[tuple[str, str], int] = {}
        for k in self.order:
            key = (self.short(k) if self.rng.random() < 0.5 else self.full(k), self.place(k))
            groups[key] = groups.get(key, 0) + 1
        parts = []
        for (name, place), n in groups.items():
            adjectives, _, noun = name.rpartition(" ")
            several = f"{_number(n)} {adjectives} {plural(noun)}"
            parts.append((article(name) if n == 1 else several) + (" " + place if place else ""))
        return self.rng.choice(("", "there is " if parts[0][:2] in ("a ", "an") else "there are ")) + _joined(parts)

    def relations(self) -> str:
        parts = []
        for k in self.rng.sample(self.order, min(len(self.order), 3)):
            relation = self.related(k)
            if relation:
                parts.append(f"{article(self.full(k))} is {relation}")
        return _joined(parts) if parts else self.list()

    def counts(self) -> str:
        place = self.rng.choice((0, 0, 1))
        names: dict[str, int] = {}
        for k in self.order:
            word = self.facts.words(k)[place]
            names[word] = names.get(word, 0) + 1
        noun = (lambda w, n: plural(w) if n > 1 else w) if place == 0 else (lambda w, n: f"{w} object" + "s" * (n > 1))
        parts = [f"{_number(n)} {noun(word, n)}" for word, n in names.items()]
        start = "there is " if parts[0].startswith("one ") else "there are "
        return self.rng.choice((start, "the picture has ", "")) + _joined(parts)

    # Questions with answers; None if the drawn object allows none.

    def ask_attribute(self) -> tuple[str, str] | None:
        k = self.rng.choice(self.order)
        category, colour, texture, size = self.facts.words(k)
        if self.judge.attribute(category)[0] != 1 << k:
            return None
        return self.rng.choice((
            (f"what colour is the {category}?", colour), (f"which colour does the {category} have?", colour),
            (f"what pattern does the {category} have?", texture), (f"how large is the {category}?", size),
            (f"what size is the {category}?", size),
        ))  # fmt: skip

    def ask_count(self) -> tuple[str, str]:
        category, colour, _, _ = self.facts.words(self.rng.choice(self.order))
        if self.rng.random() < 0.6:
            return f"how many {plural(category)} are there?", _number(self.judge.attribute(category)[0].bit_count())
        members = self.judge.attribute(colour)[0]
        return f"how many {colour} objects are there?", _number(members.bit_count())

    def ask_place(self) -> tuple[str, str] | None:
        word = self.rng.choice(_PLACES)
        certain, possible = self.judge.position(word)
        if certain != possible:
            return None
        names = [article(self.full(k)) for k in self.order if certain >> k & 1]
        return f"what is {_AT.get(word, f'at the {word}')}?", _joined(names) if names else "nothing"

    def ask_presence(self) -> tuple[str, str] | None:
        category = self.facts.words(self.rng.choice(self.order))[0]
        colour = self.facts.words(self.rng.choice(self.order))[1]
        both = self.judge.attribute(category)[0] & self.judge.attribute(colour)[0]
        if (colour, category) in HELD_OUT_PAIRS and not both:
            return None  # training texts never contain these pairs, not even as absent
        return f"is there {article(f'{colour} {category}')}?", "yes" if both else "no"

    def ask_where(self) -> tuple[str, str] | None:
        k = self.rng.choice(self.order)
        name, place = self.unique(k), self.place(k)
        if not name or not place:
            return None
        if self.rng.random() < 0.5:
            return f"where is the {name}?", place
        relation = self.related(k)
        return (f"what is {relation}?", f"the {name}") if relation and self._only(k, relation) else None

    def _only(self, k: int, relation: str) -> bool:
        """Whether a `relation` made by `related` is true of object `k` only."""
        word, _, name = relation.partition(" the ")
        target = next(o for o in range(self.facts.count) if self.unique(o) == name)
        certain, possible = self.judge.relation(word, target)
        return certain == possible == 1 << k and list(bits(certain)) == [k]
