"""Prompts about motion and order in a clip, and all prompts of a clip together.

Meanings are those of `clip_facts.ClipJudge`. As in `prompts.py`, a prompt is drawn again if any object is in a dead
zone, and the anchor of a relation is never a target.

Kinds: those of `prompts.py` for prompts that one frame answers; MOTION, ORDER and REASONING; NONE for every prompt
without a target.
"""

import random
from dataclasses import replace

import numpy as np

from maskselect.scenes.clip_facts import (
    DIRECTIONS,
    MOTION_EXTREMES,
    MOTION_RELATIONS,
    ORDER_EXTREMES,
    ORDER_RELATIONS,
    STATES,
    ClipFacts,
)
from maskselect.scenes.describe import Describer
from maskselect.scenes.facts import Verdict, bits, both
from maskselect.scenes.motion_phrases import MOTION_REASONS
from maskselect.scenes.phrases import Ask, Clause, Noun
from maskselect.scenes.prompts import draw_prompts
from maskselect.scenes.reasoning import REASONING, draw_reasoning
from maskselect.scenes.sentences import Voice, agreeing, head, say
from maskselect.scenes.spec import SPLITS, ScenePrompt

MOTION, ORDER, NONE = "motion", "order", "none"
"""Kinds of prompts beside those of `spec.KINDS` and REASONING."""

_FORMS, _TRIES = 4, 12
_CLAUSES = (*DIRECTIONS, *STATES)
_ORDERS = (*ORDER_RELATIONS, *ORDER_EXTREMES)
_SHARES = {"state": 0.35, "extreme": 0.12, "relation": 0.18, "order": 0.35}
_REFERRING_SHARES = {"relation": 0.6, "order": 0.4}
_TWO_CLAUSES = 0.12
_MOVING_REASONS = 0.4  # share of reasoning prompts about motion


def draw_clip_prompts(
    facts: ClipFacts,
    count: int,
    rng: np.random.Generator,
    split: str,
    *,
    motion_share: float = 0.5,
    reasoning_share: float = 0.1,
    reference_share: float = 0.28,
    no_target_share: float = 0.12,
) -> list[ScenePrompt]:
    """Draw `count` different prompts about a clip in random order; fewer if the clip does not allow as many.

    Args:
        facts: of the clip.
        count: number of prompts.
        rng: the only source of chance.
        split: one of SPLITS, see `draw_prompts` and `draw_reasoning`.
        motion_share: expected share of prompts about motion and order.
        reasoning_share: expected share of reasoning prompts. The others are answered by one frame.
        reference_share: share of prompts with `<mask-ref>`, see `ClipFacts.reference_frame`.
        no_target_share: share of no-target prompts.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    moving, reasoning, still = (int(n) for n in rng.multinomial(count, _whole(motion_share, reasoning_share)))
    writer = MotionWriter(facts, random.Random(int(rng.integers(2**63))), split)
    prompts = writer.several(moving, reference_share, no_target_share, reasons=False)
    if reasoning:
        about_motion = int(rng.binomial(reasoning, _MOVING_REASONS))
        reasons = writer.several(about_motion, 0.0, no_target_share, reasons=True)
        pairs = draw_reasoning(facts, reasoning - len(reasons), rng, split, reference_share, no_target_share)
        prompts += [*reasons, *(pair.reasoning for pair in pairs)]
    still = max(still, count - len(prompts))
    prompts += draw_prompts(facts, still, rng, split, reference_share, no_target_share)
    ordered = [prompts[int(place)] for place in rng.permutation(len(prompts))]
    return [prompt if prompt.targets else replace(prompt, kind=NONE) for prompt in ordered]


def _whole(*shares: float) -> tuple[float, ...]:
    return (*shares, max(1.0 - sum(shares), 0.0))


class MotionWriter(Describer):
    """Draws prompts about the motion and order of one clip."""

    def __init__(self, facts: ClipFacts, rng: random.Random, split: str) -> None:
        super().__init__(facts, rng, split)
        self.clip = facts.judge()
        self.judge = self.clip
        self.voice = Voice(rng, split)
        self.held = split.startswith("test")

    def several(self, count: int, reference_share: float, no_target_share: float, reasons: bool) -> list[ScenePrompt]:
        """At most `count` different prompts. reasons: reasoning prompts instead of direct ones."""
        prompts: dict[tuple[str, tuple[int, ...]], ScenePrompt] = {}
        for _ in range(3 * count):
            if len(prompts) == count:
                break
            empty = self.rng.random() < no_target_share
            prompt = self.reason(empty) if reasons else self.prompt(self.rng.random() < reference_share, empty)
            if prompt is not None:
                prompts.setdefault((prompt.text.lower().rstrip("."), prompt.references), prompt)
        return list(prompts.values())

    def prompt(self, referring: bool, empty: bool) -> ScenePrompt | None:
        """One prompt; None if the clip does not allow it."""
        shares = _REFERRING_SHARES if referring else _SHARES
        for _ in range(_FORMS):
            form = self.rng.choices(tuple(shares), tuple(shares.values()))[0]
            for _ in range(_TRIES):
                drafted = self._draft(form, referring, empty)
                if drafted is not None and self._accepts(*drafted, empty):
                    return self._written(*drafted)
        return None

    def _draft(self, form: str, referring: bool, empty: bool) -> tuple[Ask, Verdict] | None:
        if form == "state":
            return self._state(empty)
        if form == "order":
            return self._ordered(referring, empty)
        if form == "extreme":
            return self._extreme(self.rng.choice(MOTION_EXTREMES), empty)
        return self._relation(self.rng.choice(MOTION_RELATIONS), referring, empty)

    def _written(self, ask: Ask, verdict: Verdict) -> ScenePrompt:
        targets = tuple(bits(verdict[0]))
        self.voice.start()
        text, references = say(ask, len(targets), self.voice)
        keys = {ask.extreme, *(clause.key for clause in ask.clauses)}
        return ScenePrompt(text, references, targets, ORDER if keys & set(_ORDERS) else MOTION)

    def reason(self, empty: bool) -> ScenePrompt | None:
        """One reasoning prompt about motion; None if the clip does not allow it."""
        for _ in range(_FORMS * _TRIES):
            noun, key = self.simple(empty), self.rng.choice(tuple(MOTION_REASONS))
            fits = self.fits(noun)
            if key in MOTION_EXTREMES:
                if fits[0] != fits[1] or fits[0].bit_count() < 2:
                    continue
                verdict = self.clip.motion_extreme(key, fits[0])
            else:
                verdict = both(fits, self.clip.state(key))
            if not self._accepts(Ask((noun,)), verdict, empty):
                continue
            targets = tuple(bits(verdict[0]))
            many = len(targets) > 1
            forms = MOTION_REASONS[key]
            adjectives, after = head(self.voice, noun, many)
            text = self.voice.choose(forms.held if self.held else forms.train)
            text = agreeing(text.replace("{noun}", " ".join([adjectives, *after])), many)
            text = text[0].lower() + text[1:] if self.voice.chance(0.5) else text
            return ScenePrompt(text, (), targets, REASONING)
        return None

    def _accepts(self, ask: Ask, verdict: Verdict, empty: bool) -> bool:
        yes, possible = verdict
        if yes != possible or (yes == 0) != empty or not self.allows(ask):
            return False
        return yes != self.judge.all or self.rng.random() < 0.15

    def _noun(self, empty: bool) -> Noun:
        return self.simple(empty) if self.rng.random() < 0.75 else self.noun(empty, 1)

    def _state(self, empty: bool) -> tuple[Ask, Verdict] | None:
        noun, key = self._noun(empty), self._key(empty)
        clauses, verdict = [Clause(key)], both(self.fits(noun), self.clip.state(key))
        if self.rng.random() < _TWO_CLAUSES:
            other = self._key(empty)
            if other.split()[0] == key.split()[0] or "still" in (key, other):
                return None
            clauses.append(Clause(other))
            verdict = both(verdict, self.clip.state(other))
        return Ask((noun,), tuple(clauses)), verdict

    def _key(self, empty: bool) -> str:
        """A state or direction, mostly one that some object has."""
        key = self.rng.choice(_CLAUSES)
        for _ in range(3):
            if empty or self.clip.state(key)[0]:
                break
            key = self.rng.choice(_CLAUSES)
        return key

    def _ordered(self, referring: bool, empty: bool) -> tuple[Ask, Verdict] | None:
        if referring or self.rng.random() < 0.35:
            return self._relation(self.rng.choice(ORDER_RELATIONS), referring, empty)
        return self._extreme(self.rng.choice(ORDER_EXTREMES), empty)

    def _extreme(self, key: str, empty: bool) -> tuple[Ask, Verdict] | None:
        noun = self._noun(empty)
        among = self.fits(noun)
        if among[0] != among[1] or among[0].bit_count() < 2:
            return None
        return Ask((noun,), extreme=key), self.clip.motion_extreme(key, among[0])

    def _relation(self, key: str, referring: bool, empty: bool) -> tuple[Ask, Verdict] | None:
        noun, anchor = self._noun(empty), self.anchor(referring)
        related = None if anchor is None else self.clip.motion_relation(key, anchor.item)
        if anchor is None or related is None:
            return None
        others = self.clip.all & ~(1 << anchor.item)
        verdict = both(both(self.fits(noun), (others, others)), related)
        return Ask((noun,), (Clause(key, (anchor,)),)), verdict
