"""Prompts about a scene with their targets.

The meaning of a prompt is defined on the visible masks; `facts.Judge` holds the predicates and their dead zones:

- category: the drawn category; "thing", "object", "item", "everything" mean any. A ball is not a circle.
- attribute: the colour, texture and size words of the drawing.
- position: by centroid. "leftmost", "largest" and so on: the extreme among the objects that the rest of the prompt
  describes.
- relation to Y: Y is a `<mask-ref>` or a description of exactly one object of the scene. Y is never a target, so "the
  same colour as Y", "all objects like Y" (same category) and "everything except Y" leave Y out.
- bare references are their own targets.

A prompt is drawn again if any object is in a dead zone. An object that clearly fails one condition of a conjunction is
no target, even if it is in the dead zone of another condition.
"""

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from maskselect.scenes.describe import Describer
from maskselect.scenes.facts import CORNERS, EXTREMES, SIDES, JudgedFacts, Verdict, bits, both, either
from maskselect.scenes.phrases import Ask, Clause, Noun
from maskselect.scenes.sentences import Voice, say, say_special
from maskselect.scenes.spec import COLOURS, KINDS, SPLITS, ScenePrompt

KIND_SHARES = dict(zip(KINDS, (0.12, 0.20, 0.13, 0.17, 0.13, 0.08, 0.17), strict=True))
REFERRING = ("relative position", "comparison", "interaction", "combination")
TWO_REFERENCES = 0.12  # share among the prompts with references
TRIES = 24
MORE_INTERACTIONS = 1.2
POSITIONS = (*SIDES, *SIDES, "middle", "middle", *CORNERS, "corner")
BESIDE = ("left of", "right of", "above", "below", "left of", "right of", "above", "below", "near", "near", "near")
COMPARED = ("larger", "smaller", "larger", "smaller", "same colour", "same shape", "same texture", "different colour")
INTERACTIONS = ("on", "inside", "touching", "behind", "in front of", "under", "containing")


class _Want(NamedTuple):
    """Requirements of the next prompt."""

    kind: str
    references: int
    empty: bool


class Draft(NamedTuple):
    """A prompt before its sentence is written."""

    ask: Ask
    verdict: Verdict
    references: tuple[int, ...] = ()


def draw_prompts(
    facts: JudgedFacts,
    count: int,
    rng: np.random.Generator,
    split: str,
    reference_share: float = 0.28,
    no_target_share: float = 0.12,
    kind_shares: Mapping[str, float] = KIND_SHARES,
) -> list[ScenePrompt]:
    """Draw `count` different prompts about a scene; fewer if the scene does not allow as many.

    Args:
        rng: the only source of chance; it advances by one draw.
        split: one of SPLITS. "train" never names a pair of HELD_OUT_PAIRS; "test-words" uses held-out phrasings in most
            prompts and prefers those pairs.
        reference_share: share of prompts with `<mask-ref>`, of which about an eighth have two.
        no_target_share: share of no-target prompts.
        kind_shares: approximate share of each kind.

    Raises:
        ValueError: the split is unknown, or `kind_shares` does not name all of KINDS.
    """
    if set(kind_shares) != set(KINDS):
        raise ValueError(f"kind_shares names {', '.join(kind_shares)}; expected {', '.join(KINDS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    if facts.count == 0:
        return []
    writer = Writer(facts, random.Random(int(rng.integers(2**63))), split)
    weights = kind_weights(kind_shares, reference_share)
    prompts: list[ScenePrompt] = []
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for _ in range(4 * count):
        if len(prompts) == count:
            break
        prompt = writer.draw(weights, reference_share, no_target_share)
        if prompt is None or (prompt.text.lower().rstrip("."), prompt.references) in seen:
            continue
        seen.add((prompt.text.lower().rstrip("."), prompt.references))
        prompts.append(prompt)
    return prompts


def kind_weights(shares: Mapping[str, float], reference_share: float) -> tuple[list[float], list[float]]:
    """The weights of KINDS without and with references that give the shares."""
    share = min(max(reference_share, 0.0), 1.0)
    total = sum(shares[k] for k in REFERRING)
    referring = [shares[k] / total * (k in REFERRING) for k in KINDS]
    rest = [max(shares[k] - share * r, 0.005) for k, r in zip(KINDS, referring, strict=True)]
    return rest, referring


class Writer(Describer):
    """Draws prompts about one scene."""

    def __init__(self, facts: JudgedFacts, rng: random.Random, split: str) -> None:
        super().__init__(facts, rng, split)
        self.voice = Voice(rng, split)
        self.recipes: dict[str, Callable[[_Want], Draft | None]] = {
            "category": self._category,
            "attribute": self._attribute,
            "absolute position": self._absolute,
            "relative position": self._relative,
            "comparison": self._comparison,
            "interaction": self._interaction,
            "combination": self._combination,
        }

    def draw(
        self, kind_weights: tuple[list[float], list[float]], reference_share: float, no_target_share: float
    ) -> ScenePrompt | None:
        """One prompt, or None if the scene does not allow it."""
        drafted = self.draft(kind_weights, reference_share, no_target_share)
        return None if drafted is None else self._write(*drafted)

    def draft(
        self, kind_weights: tuple[list[float], list[float]], reference_share: float, no_target_share: float
    ) -> tuple[Draft, str] | None:
        """A draft and its kind. Up to six kinds are tried."""
        referring = self.rng.random() < reference_share
        references = (2 if self.rng.random() < TWO_REFERENCES else 1) if referring else 0
        empty = self.rng.random() < no_target_share
        weights = kind_weights[referring]
        if len(self.judge.facts.relations):  # scenes without relations rarely allow interactions: compensate
            weights = [w * (1 + MORE_INTERACTIONS * (k == "interaction")) for k, w in zip(KINDS, weights, strict=True)]
        for _ in range(6):
            kind = self.rng.choices(KINDS, weights)[0]
            for _ in range(TRIES):
                draft = self.recipes[kind](_Want(kind, references, empty))
                if draft is not None and self._accepts(draft, empty):
                    return draft, kind
        return None

    def _accepts(self, draft: Draft, empty: bool) -> bool:
        yes, possible = draft.verdict
        if yes != possible or (yes == 0) != empty:
            return False
        if not self.allows(draft.ask):
            return False
        # Prompts for all objects are rare.
        return yes != self.judge.all or self.judge.count == 1 or self.rng.random() < 0.15

    def _write(self, draft: Draft, kind: str) -> ScenePrompt:
        targets = tuple(bits(draft.verdict[0]))
        self.voice.start()
        if draft.ask.special:
            text, references = say_special(draft.ask.special, draft.references, self.voice), draft.references
        else:
            text, references = say(draft.ask, len(targets), self.voice)
        return ScenePrompt(text, references, targets, kind)

    # One recipe per kind.

    def _category(self, want: _Want) -> Draft:
        noun = self.noun(want.empty, 0)
        if not want.empty and self.rng.random() < 0.04:
            noun = Noun()
        return Draft(Ask((noun,)), self.fits(noun))

    def _attribute(self, want: _Want) -> Draft:
        parts = self.rng.choices((1, 2, 3), (0.6, 0.3, 0.1))[0]
        noun = self.noun(want.empty, parts, category=self.rng.random() < (0.6 if parts < 3 else 0.9))
        return Draft(Ask((noun,)), self.fits(noun))

    def _absolute(self, want: _Want) -> Draft | None:
        noun = self.simple(want.empty)
        if self.rng.random() < 0.35:
            return self._extreme(noun, (), self.rng.choice(EXTREMES[:4]), self.fits(noun))
        key = self.rng.choice(POSITIONS)
        return Draft(Ask((noun,), (Clause(key),)), both(self.fits(noun), self.judge.position(key)))

    def _extreme(self, noun: Noun, clauses: tuple[Clause, ...], word: str, among: Verdict) -> Draft | None:
        if among[0] != among[1] or among[0].bit_count() == 1:
            return None  # unclear competitors, or only one
        return Draft(Ask((noun,), clauses, extreme=word), self.judge.extreme(word, among[0]))

    def _relative(self, want: _Want) -> Draft | None:
        if want.references == 2:
            return self._joined(self.simple(want.empty), self.clause("between", 2))
        if want.references == 0 and self.rng.random() < 0.1:
            return self._joined(self.simple(want.empty), self.clause("between", 0))
        return self._joined(self.simple(want.empty), self.clause(self.rng.choice(BESIDE), want.references))

    def _joined(self, noun: Noun, *clauses: tuple[Clause, Verdict] | None) -> Draft | None:
        verdict = self.fits(noun)
        for each in clauses:
            if each is None:
                return None
            verdict = both(verdict, each[1])
        return Draft(Ask((noun,), tuple(each[0] for each in clauses if each)), verdict)

    def _comparison(self, want: _Want) -> Draft | None:
        if want.references and not want.empty and self.rng.random() < 0.3:
            return self._bare(want.references)
        if want.references == 0 and self.rng.random() < 0.4:
            noun = self.simple(want.empty)
            noun = noun if noun.size == "" else Noun()
            return self._extreme(noun, (), self.rng.choice(EXTREMES[4:]), self.fits(noun))
        if want.references == 2:
            key = self.rng.choice(("same colour either", "same shape either"))
        else:
            key = self.rng.choice(COMPARED)
        noun = Noun() if "shape" in key else self.simple(want.empty)
        if (noun.colour and "colour" in key) or (noun.texture and "texture" in key) or (noun.size and key == "larger"):
            noun = Noun()
        return self._joined(noun, self.clause(key, want.references))

    def _bare(self, references: int) -> Draft | None:
        if references > self.judge.count:
            return None
        chosen = tuple(self.rng.sample(range(self.judge.count), references))
        members = sum(1 << k for k in chosen)
        special = "these" if references == 2 else self.rng.choice(("this", "this", "except"))
        if special == "except":
            members = self.judge.all & ~members
        return Draft(Ask(special=special), (members, members), chosen)

    def _interaction(self, want: _Want) -> Draft | None:
        if want.references == 2:
            return None
        key, anchor = self.rng.choice(INTERACTIONS), -1
        intended = self.judge.facts.relations
        if len(intended) and self.rng.random() < (0.4 if want.empty else 0.7):
            relation, subject, target = intended[self.rng.randrange(len(intended))].tolist()
            key, anchor = INTERACTIONS[relation], target
            inverse = {"on": "under", "inside": "containing", "behind": "in front of", "touching": "touching"}[key]
            if self.rng.random() < 0.35:
                key, anchor = inverse, subject
        return self._joined(self.simple(want.empty), self.clause(key, want.references, anchor))

    def _combination(self, want: _Want) -> Draft | None:
        if want.references == 2:
            return self._two_sided(want)
        if want.references:
            return self._related(want)
        recipe = self.rng.choices(
            (self._related, self._placed, self._union, self._either, self._negated, self._counted, self._best),
            (0.22, 0.2, 0.12, 0.12, 0.12, 0.1, 0.12),
        )[0]
        return recipe(want)

    def _two_sided(self, want: _Want) -> Draft | None:
        first, second = self.rng.choice((("left of", "right of"), ("above", "below"), ("left of", "above"),
                                         ("right of", "below"), ("near", "above"), ("left of", "below")))  # fmt: skip
        a, b = self.clause(first, 1), self.clause(second, 1)
        if a is None or b is None or a[0].anchors[0].item == b[0].anchors[0].item:
            return None
        return self._joined(self.simple(want.empty), a, b)

    def _related(self, want: _Want) -> Draft | None:
        """Attributes and a relation, sometimes with an absolute position or an extreme."""
        draw = self.rng.random()
        key = self.rng.choice((*BESIDE, "larger", "smaller", "same colour", "touching"))
        related = self.clause(key, want.references)
        noun = self.noun(want.empty and draw < 0.5, 1, category=draw < 0.7)
        if related is None or (noun.colour and related[0].key == "same colour"):
            return None
        if draw > 0.85:
            noun = self.simple(False)
            clear = both(self.fits(noun), related[1])
            return self._extreme(noun, (related[0],), self.rng.choice(EXTREMES[4:]), clear)
        if draw > 0.6:
            key = self.rng.choice((*SIDES, "middle"))
            return self._joined(self.simple(False), (Clause(key), self.judge.position(key)), related)
        return self._joined(noun, related)

    def _placed(self, want: _Want) -> Draft | None:
        key, negated = self.rng.choice(POSITIONS), self.rng.random() < 0.25
        verdict = self.judge.position(key)
        verdict = self.judge.negate(verdict) if negated else verdict
        noun = self.noun(want.empty and self.rng.random() < 0.5, 1, category=self.rng.random() < 0.7)
        return self._joined(noun, (Clause(key, negated=negated), verdict))

    def _union(self, want: _Want) -> Draft | None:
        parts = self.rng.randrange(2)
        nouns = (self.noun(want.empty, parts), self.noun(want.empty, parts))
        if nouns[0].category == nouns[1].category:
            return None
        verdict = either(self.fits(nouns[0]), self.fits(nouns[1]))
        if not want.empty and not (self.fits(nouns[0])[0] and self.fits(nouns[1])[0]):
            return None
        return Draft(Ask(nouns), verdict)

    def _either(self, want: _Want) -> Draft | None:
        noun = self.noun(want.empty, 1, category=self.rng.random() < 0.6)
        other = self.judge.words[self.rng.choice(self.pool)][1] if self.rng.random() < 0.6 else self.rng.choice(COLOURS)
        if not noun.colour or other == noun.colour:
            return None
        noun = noun._replace(either=other)
        return Draft(Ask((noun,)), self.fits(noun))

    def _negated(self, want: _Want) -> Draft | None:
        noun = self.noun(want.empty, 0, category=self.rng.random() < 0.7)
        place = self.rng.choices((1, 2, 3), (0.6, 0.2, 0.2))[0]
        word = self.judge.words[self.rng.choice(self.pool)][place]
        if word == "medium" or (noun.category and not self.fits(noun)[0] & self.judge.attribute(word)[0]):
            return None  # "cars that are not red" requires a red car
        noun = noun._replace(without=word)
        return Draft(Ask((noun,)), self.fits(noun))

    def _counted(self, want: _Want) -> Draft | None:
        draft = self._absolute(want) if self.rng.random() < 0.6 else self._attribute(want)
        if want.empty or draft is None or draft.ask.extreme or draft.verdict[0].bit_count() < 2:
            return None
        return draft._replace(ask=draft.ask._replace(counted=True))

    def _best(self, want: _Want) -> Draft | None:
        """The extreme among the objects of a description or position."""
        key = self.rng.choice((*SIDES, ""))
        noun = self.simple(want.empty) if key else self.noun(want.empty, 1, category=self.rng.random() < 0.6)
        word = self.rng.choice(EXTREMES[4:] if key else EXTREMES)
        if noun.size and word in EXTREMES[4:]:
            return None
        if not key:
            return self._extreme(noun, (), word, self.fits(noun))
        return self._extreme(noun, (Clause(key),), word, both(self.fits(noun), self.judge.position(key)))
