"""No-target prompts with a word that the scenes never show.

Each is a prompt of `prompts.py` that has a target, with one word of `unknown_words.py` in it:

- "unknown noun": in place of the category ("the red submarine on the left");
- "unknown adjective": with a known category ("the burning house");
- "unknown anchor": in a relation of a known category ("the mug left of the submarine").
"""

import random

import numpy as np

from maskselect.scenes.facts import JudgedFacts
from maskselect.scenes.phrases import Anchor, Ask, Clause, Noun
from maskselect.scenes.prompts import KIND_SHARES, Writer, kind_weights
from maskselect.scenes.sentences import say
from maskselect.scenes.spec import ScenePrompt
from maskselect.scenes.unknown_words import words_of

NOUN, ADJECTIVE, ANCHOR = "unknown noun", "unknown adjective", "unknown anchor"
UNKNOWN_SHARES = {NOUN: 0.7, ADJECTIVE: 0.15, ANCHOR: 0.15}
"""Approximate share of each kind."""

_BARE = 0.25  # share of prompts of an unknown noun without any condition ("the submarine")
_BOTH = 0.1  # share of unknown nouns with an unknown adjective
_TRIES = 12


def draw_unknown(
    facts: JudgedFacts, count: int, rng: np.random.Generator, split: str, reference_share: float = 0.28
) -> list[ScenePrompt]:
    """Draw `count` different prompts with unknown words, of the kinds in UNKNOWN_SHARES.

    Args:
        rng: the only source of chance; it advances by one draw.
        split: one of SPLITS; for the words see `words_of`, for the phrasing `draw_prompts`.
        reference_share: share of prompts with `<mask-ref>` among those with conditions.

    Raises:
        ValueError: the split is unknown.
    """
    nouns, adjectives = words_of(split)
    if facts.count == 0:
        return []
    writer = _Writer(facts, random.Random(int(rng.integers(2**63))), split, nouns, adjectives)
    weights = kind_weights(KIND_SHARES, reference_share)
    prompts: dict[tuple[str, tuple[int, ...]], ScenePrompt] = {}
    for _ in range(4 * count):
        if len(prompts) == count:
            break
        prompt = writer.prompt(weights, reference_share)
        if prompt is not None:
            prompts.setdefault((prompt.text.lower().rstrip("."), prompt.references), prompt)
    return list(prompts.values())


class _Writer(Writer):
    """Draws prompts with unknown words about a scene."""

    def __init__(
        self, facts: JudgedFacts, rng: random.Random, split: str, nouns: tuple[str, ...], adjectives: tuple[str, ...]
    ) -> None:
        super().__init__(facts, rng, split)
        self.nouns, self.adjectives = nouns, adjectives

    def prompt(self, weights: tuple[list[float], list[float]], reference_share: float) -> ScenePrompt | None:
        """One prompt of a random kind; None if the scene does not allow it."""
        kind = self.rng.choices(tuple(UNKNOWN_SHARES), tuple(UNKNOWN_SHARES.values()))[0]
        if kind == NOUN and self.rng.random() < _BARE:
            return self._prompt_of(Ask((self._named(Noun()),)), self.rng.choice((1, 1, 2)), kind)
        for _ in range(_TRIES):
            draft = self.draft(weights, reference_share, 0.0)
            ask = self._changed(draft[0].ask, kind) if draft is not None else None
            if draft is not None and ask is not None:
                return self._prompt_of(ask, draft[0].verdict[0].bit_count(), kind)
        return None

    def _prompt_of(self, ask: Ask, answers: int, kind: str) -> ScenePrompt:
        """The prompt of `ask`, phrased as if it had `answers` targets."""
        self.voice.start()
        text, references = say(ask, answers, self.voice)
        return ScenePrompt(text, references, (), kind)

    def _changed(self, ask: Ask, kind: str) -> Ask | None:
        """`ask` with an unknown word; None if there is no place for one."""
        if ask.special:
            return None
        if kind == NOUN:
            return ask._replace(nouns=tuple(self._named(noun) for noun in ask.nouns))
        if kind == ADJECTIVE:
            described = tuple(noun._replace(texture=self.rng.choice(self.adjectives), without="") for noun in ask.nouns)
            return ask._replace(nouns=described)
        changed = tuple(self._with_unknown_anchor(clause) for clause in ask.clauses)
        return ask._replace(clauses=changed) if changed != ask.clauses else None

    def _named(self, noun: Noun) -> Noun:
        texture = self.rng.choice(self.adjectives) if self.rng.random() < _BOTH else noun.texture
        return noun._replace(category=self.rng.choice(self.nouns), texture=texture)

    def _with_unknown_anchor(self, clause: Clause) -> Clause:
        """The clause with an unknown noun for its first described anchor, if it has one."""
        anchors = list(clause.anchors)
        for place, anchor in enumerate(anchors):
            if anchor.noun is not None:
                anchors[place] = Anchor(anchor.item, self._named(anchor.noun))
                return clause._replace(anchors=tuple(anchors))
        return clause
