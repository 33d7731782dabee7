"""Reasoning prompts, which describe the use or traits of a thing without its name, and naming prompts with the name.

Both prompts of a pair have the same meaning: one `Ask`, phrased twice. Its other conditions (attributes, a position, a
relation to a `<mask-ref>`) have the meaning defined in `prompts.py`.
"""

import random
import re
from typing import NamedTuple

import numpy as np

from maskselect.scenes.describe import Describer
from maskselect.scenes.facts import JudgedFacts, Verdict, bits, both
from maskselect.scenes.figures import FIGURES
from maskselect.scenes.phrases import CLAUSES, REF, Ask, Clause, Forms, Noun
from maskselect.scenes.prompts import BESIDE, POSITIONS
from maskselect.scenes.properties import PROPERTIES
from maskselect.scenes.sentences import Voice, agreeing, head, plural, say
from maskselect.scenes.spec import CATEGORIES, SPLITS, ScenePrompt
from maskselect.scenes.templates import FIGURE_NOUNS, TAILS, TEMPLATES, THING_NOUNS

REASONING, NAMING = "reasoning", "naming"
"""The kinds of a pair's two prompts."""

_TRIES = 40
_ABSENT = 0.7  # share of no-target prompts whose category is not in the scene
_PLACED = 0.2  # share of prompts without a reference that state a position
_RELATIONS = (*BESIDE, "larger", "smaller")
_AMBIGUOUS = re.compile(r"\{nouns?\} (that|with) ")
"""What follows would be ambiguous after "thing at the top of the image"."""

_SLOTS = ("{noun}", "{nouns}", "{tail}")


class ReasoningPair(NamedTuple):
    """Two prompts with the same references and targets: without and with the target's name."""

    reasoning: ScenePrompt
    naming: ScenePrompt


def draw_reasoning(
    facts: JudgedFacts,
    count: int,
    rng: np.random.Generator,
    split: str,
    reference_share: float = 0.28,
    no_target_share: float = 0.12,
) -> list[ReasoningPair]:
    """Draw `count` pairs with different meanings; fewer if the scene does not allow as many.

    Args:
        rng: the only source of chance; it advances by one draw.
        split: one of SPLITS. "train" and "val" use the first halves of PROPERTIES and TEMPLATES; the test splits use
            the second half of TEMPLATES, and "test-words" also that of PROPERTIES. HELD_OUT_PAIRS and naming prompts
            are as in `draw_prompts`.
        reference_share: share of pairs with a `<mask-ref>`.
        no_target_share: share of no-target pairs; most of them ask for a category that is not in the scene.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    if facts.count == 0:
        return []
    writer = _Writer(facts, random.Random(int(rng.integers(2**63))), split)
    pairs: dict[Ask, ReasoningPair] = {}
    for _ in range(4 * count):
        if len(pairs) == count:
            break
        drawn = writer.draw(reference_share, no_target_share)
        if drawn is not None and drawn[0] not in pairs:
            pairs[drawn[0]] = writer.pair(*drawn)
    return list(pairs.values())


def phrases_of(category: str, held: bool) -> list[tuple[str, str]]:
    """All phrases about a category, in training or held out, as (kind in TEMPLATES, phrase)."""
    uses, goals, reasons, traits = (_half(forms, held) for forms in PROPERTIES[category])
    kinds = (("use", uses), ("goal", goals), ("reason", reasons), ("trait", traits))
    phrases = [(kind, phrase) for kind, of_kind in kinds for phrase in of_kind]
    return phrases + [("having", t.removeprefix("{has} ")) for t in traits if t.startswith("{has} ")]


def _half(forms: Forms, held: bool) -> tuple[str, ...]:
    return forms.held if held else forms.train


class _Writer(Describer):
    """Draws pairs about one scene."""

    def __init__(self, facts: JudgedFacts, rng: random.Random, split: str) -> None:
        super().__init__(facts, rng, split)
        self.voice = Voice(rng, split)
        self.new_templates, self.new_phrases = split.startswith("test"), split == "test-words"

    def draw(self, reference_share: float, no_target_share: float) -> tuple[Ask, Verdict] | None:
        """The meaning of a pair, and its targets."""
        referring, empty = self.rng.random() < reference_share, self.rng.random() < no_target_share
        for _ in range(_TRIES):
            proposed = self._propose(referring, empty)
            if proposed is not None and self._accepts(*proposed, empty):
                return proposed
        return None

    def _propose(self, referring: bool, empty: bool) -> tuple[Ask, Verdict] | None:
        clause = None
        if referring:
            clause = self.clause(self.rng.choice(_RELATIONS), 1)
            if clause is None:
                return None
        elif self.rng.random() < _PLACED:
            key = self.rng.choice(POSITIONS)
            clause = Clause(key), self.judge.position(key)
        noun = self.noun(empty, self.rng.choices((0, 1, 2), (0.8, 0.2, 0.0) if clause else (0.45, 0.4, 0.15))[0])
        absent = [category for category in CATEGORIES if not self.judge.attribute(category)[0]]
        if empty and absent and self.rng.random() < _ABSENT:
            noun = noun._replace(category=self.rng.choice(absent))
        if clause is None:
            return Ask((noun,)), self.fits(noun)
        return Ask((noun,), (clause[0],)), both(self.fits(noun), clause[1])

    def _accepts(self, ask: Ask, verdict: Verdict, empty: bool) -> bool:
        yes, possible = verdict
        if yes != possible or (yes == 0) != empty or not self.allows(ask):
            return False
        # As in `prompts.py`, prompts for all objects are rare.
        return yes != self.judge.all or self.judge.count == 1 or self.rng.random() < 0.15

    def pair(self, ask: Ask, verdict: Verdict) -> ReasoningPair:
        """The two prompts of `ask`."""
        targets = tuple(bits(verdict[0]))
        self.voice.start()
        references = tuple(anchor.item for clause in ask.clauses for anchor in clause.anchors)
        reasoning = ScenePrompt(self._reason(ask, len(targets)), references, targets, REASONING)
        name, references = say(ask, len(targets), self.voice)
        return ReasoningPair(reasoning, ScenePrompt(name, references, targets, NAMING))

    def _reason(self, ask: Ask, answers: int) -> str:
        noun, choose = ask.nouns[0], self.voice.choose
        kind, phrase = self.rng.choice(phrases_of(noun.category, self.new_phrases))
        fitting = tuple(t for t in _half(TEMPLATES[kind], self.new_templates) if _suits(t, ask))
        many = answers > 1 or self.voice.chance(0.3)
        text = choose(fitting)
        spread = not ask.clauses and not _AMBIGUOUS.search(text)  # "that is red that has fins"
        word = choose(FIGURE_NOUNS if noun.category in FIGURES else THING_NOUNS)
        if "{noun}" in text:
            text = text.replace("{noun}", self._described(ask, plural(word) if many else word, many, spread))
        if "{nouns}" in text:
            text = text.replace("{nouns}", self._described(ask, plural(word), True, spread))
        text = text.replace("{tail}", self._tail(ask, many) if _says_more(ask) else "")
        for slot, several in (("{trait1}", False), ("{traits}", True), ("{trait}", many)):
            text = text.replace(slot, agreeing(phrase, several))
        text = text.replace("{Reason}", phrase[0].upper() + phrase[1:]).replace(f"{{{kind}}}", phrase)
        return self._dressed(agreeing(text, many))

    def _described(self, ask: Ask, word: str, many: bool, spread: bool) -> str:
        """`word` with all conditions but the category: "red things on the left"."""
        adjectives, after = head(self.voice, ask.nouns[0]._replace(category=""), many, spread)
        parts = [*adjectives.split(" ")[:-1], word, *after]  # the last is a general noun, which `word` replaces
        for clause in ask.clauses:
            form = self.voice.pick(CLAUSES[clause.key]).removeprefix("that {is} ")
            parts.append(form.replace("{0}", REF))
        return agreeing(" ".join(parts), many)

    def _tail(self, ask: Ask, many: bool) -> str:
        ones = "the " + self._described(ask, "ones" if many else "one", many, not ask.clauses)
        return self.voice.choose(_half(TAILS, self.new_templates)).replace("{ones}", ones)

    def _dressed(self, text: str) -> str:
        """As people type: often without a capital letter, sometimes without the full stop."""
        if not text.startswith("I ") and self.voice.chance(0.5):
            text = text[0].lower() + text[1:]
        return text[:-1] if text.endswith(".") and not re.search(r"[.?] ", text) and self.voice.chance(0.4) else text


def _says_more(ask: Ask) -> bool:
    return bool(ask.clauses) or ask.nouns[0] != Noun(ask.nouns[0].category)


def _suits(template: str, ask: Ask) -> bool:
    """Whether a template can state all conditions of `ask` without ambiguity."""
    if ask.clauses and _AMBIGUOUS.search(template):
        return False
    return not _says_more(ask) or any(slot in template for slot in _SLOTS)
