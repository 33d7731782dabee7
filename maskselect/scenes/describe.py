"""Proposes what a prompt may be about: nouns, anchors and clauses of one scene, each with its verdict."""

import random

from maskselect.scenes.facts import JudgedFacts, Verdict, both, either
from maskselect.scenes.phrases import Anchor, Ask, Clause, Noun
from maskselect.scenes.spec import CATEGORIES, COLOURS, HELD_OUT_PAIRS, SIZES, TEXTURES

HELD_OUT = frozenset(HELD_OUT_PAIRS)


class Describer:
    """Draws descriptions of the objects of a scene or clip.

    Args:
        facts: of at least one object.
        rng: source of chance.
        split: one of SPLITS; "train" bans HELD_OUT_PAIRS, "test-words" favours them.
    """

    def __init__(self, facts: JudgedFacts, rng: random.Random, split: str) -> None:
        self.judge = facts.judge()
        self.rng = rng
        self.banned = HELD_OUT if split == "train" else frozenset()
        favour = 4 if split == "test-words" else 1
        words = self.judge.words
        self.pool = [k for k, w in enumerate(words) for _ in range(favour if (w[1], w[0]) in HELD_OUT else 1)]

    def allows(self, ask: Ask) -> bool:
        """Whether `ask` names no banned pair."""
        nouns = [*ask.nouns, *(a.noun for c in ask.clauses for a in c.anchors if a.noun is not None)]
        return not self.banned or not any(pair in self.banned for noun in nouns for pair in _pairs(noun))

    def noun(self, empty: bool, parts: int, category: bool = True) -> Noun:
        """A description from the words of an object.

        Args:
            empty: exchange some words for those of other objects, or random ones, so that no object may fit.
            parts: number of attributes.
            category: whether to name the category.
        """
        words = list(self.judge.words[self.rng.choice(self.pool)])
        if empty:
            for place in self.rng.sample(range(4), 2):
                if self.rng.random() < 0.6:
                    words[place] = self.judge.words[self.rng.choice(self.pool)][place]
                else:
                    words[place] = self.rng.choice((CATEGORIES, COLOURS, TEXTURES, SIZES)[place])
        chosen = self.rng.choices(("colour", "texture", "size"), (0.5, 0.25, 0.25), k=2 * parts)
        chosen = list(dict.fromkeys(chosen))[:parts]
        if words[3] == "medium" and "size" in chosen and self.rng.random() < 0.7:
            chosen = ["colour" if word == "size" else word for word in chosen]
        return Noun(
            category=words[0] if category else "",
            colour=words[1] if "colour" in chosen else "",
            texture=words[2] if "texture" in chosen else "",
            size=words[3] if "size" in chosen else "",
        )

    def simple(self, empty: bool) -> Noun:
        """A short description for prompts with other conditions: mostly any object, or a category."""
        draw = self.rng.random()
        if draw < 0.45:
            return Noun()
        return self.noun(empty and draw < 0.7, 0) if draw < 0.85 else self.noun(False, 1, category=False)

    def fits(self, noun: Noun) -> Verdict:
        """The objects that `noun` describes; always certain in a scene."""
        yes = possible = self.judge.all
        for word in (noun.category, noun.texture, noun.size):
            if word:
                yes, possible = both((yes, possible), self.judge.attribute(word))
        if noun.colour:
            colours = self.judge.attribute(noun.colour)
            if noun.either:
                colours = either(colours, self.judge.attribute(noun.either))
            yes, possible = both((yes, possible), colours)
        if noun.without:
            yes, possible = both((yes, possible), self.judge.negate(self.judge.attribute(noun.without)))
        return yes, possible

    def anchor(self, reference: bool, index: int = -1) -> Anchor | None:
        """An object as anchor, by reference or by a description that fits no other object."""
        k = self.rng.randrange(self.judge.count) if index < 0 else index
        if reference:
            return Anchor(k)
        category, colour, texture, size = self.judge.words[k]
        options = [Noun(category), Noun(category), Noun(category, colour), Noun("", colour), Noun(category, size=size),
                   Noun(category, texture=texture)]  # fmt: skip
        options = [*self.rng.sample(options, len(options)), Noun(category, colour, size=size)]
        for noun in options:
            if noun.size == "medium":
                continue
            if self.fits(noun) == (1 << k, 1 << k) and not any(pair in self.banned for pair in _pairs(noun)):
                return Anchor(k, noun)
        return None

    def clause(self, key: str, references: int, index: int = -1) -> tuple[Clause, Verdict] | None:
        """The clause `key` with its anchors, the first `references` of them by reference."""
        anchor = self.anchor(references > 0, index)
        if anchor is None:
            return None
        if key != "between" and not key.endswith("either"):
            return Clause(key, (anchor,)), self.judge.relation(key, anchor.item)
        other = self.anchor(references > 1)
        if other is None or other.item == anchor.item:
            return None
        if key == "between":
            return Clause(key, (anchor, other)), self.judge.relation(key, anchor.item, other.item)
        plain = key.removesuffix(" either")
        verdict = either(self.judge.relation(plain, anchor.item), self.judge.relation(plain, other.item))
        skip = ~(1 << anchor.item | 1 << other.item)
        return Clause(key, (anchor, other)), (verdict[0] & skip, verdict[1] & skip)


def _pairs(noun: Noun) -> list[tuple[str, str]]:
    return [(word, noun.category) for word in (noun.colour, noun.either, noun.without) if word]
