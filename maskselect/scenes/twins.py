"""Twin prompts: once with `<mask-ref>`, and once with a description in its place (RAS, Table B).

Both have the same words but for the reference, the same targets and the same kind. The description fits no other object
of the scene, so both ask for the same group.
"""

import random
from typing import NamedTuple

import numpy as np

from maskselect.scenes.facts import JudgedFacts, bits
from maskselect.scenes.phrases import REF, Anchor
from maskselect.scenes.prompts import KIND_SHARES, Writer, kind_weights
from maskselect.scenes.sentences import anchor_text, say
from maskselect.scenes.spec import SPLITS, ScenePrompt

_TRIES = 8  # drafts for each pair


class Twins(NamedTuple):
    """A prompt with references, and its twin without."""

    visual: ScenePrompt
    verbal: ScenePrompt


def draw_twins(
    facts: JudgedFacts, count: int, rng: np.random.Generator, split: str, no_target_share: float = 0.12
) -> list[Twins]:
    """Draw `count` different pairs about a scene; fewer if the scene does not allow as many.

    Args:
        facts: of the scene.
        count: number of pairs.
        rng: the only source of chance; it advances by one draw.
        split: see `draw_prompts`.
        no_target_share: share of no-target pairs.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    if facts.count == 0:
        return []
    writer = _TwinWriter(facts, random.Random(int(rng.integers(2**63))), split)
    weights = kind_weights(KIND_SHARES, 1.0)
    pairs: dict[tuple[str, tuple[int, ...]], Twins] = {}
    for _ in range(_TRIES * count):
        if len(pairs) == count:
            break
        twins = writer.draw_twins(weights, no_target_share)
        if twins is not None:
            pairs.setdefault((twins.visual.text.lower().rstrip("."), twins.visual.references), twins)
    return list(pairs.values())


class _TwinWriter(Writer):
    """Draws pairs about one scene."""

    def draw_twins(self, weights: tuple[list[float], list[float]], no_target_share: float) -> Twins | None:
        """One pair; None if the scene does not allow it, or a reference has no description of its own."""
        drafted = self.draft(weights, 1.0, no_target_share)
        if drafted is None or drafted[0].ask.special:  # a bare reference has no description beside it
            return None
        (ask, verdict, _), kind = drafted
        targets = tuple(bits(verdict[0]))
        self.voice.start()
        text, references = say(ask, len(targets), self.voice)
        anchors = [self.anchor(False, item) for item in references]
        if not references or any(anchor is None for anchor in anchors):
            return None
        visual = ScenePrompt(text, references, targets, kind)
        return Twins(visual, ScenePrompt(self._described(text, anchors), (), targets, kind))

    def _described(self, text: str, anchors: list[Anchor | None]) -> str:
        """The text with the description of each anchor in place of its reference."""
        first, *pieces = text.split(REF)
        for piece, anchor in zip(pieces, anchors, strict=True):
            assert anchor is not None
            first += anchor_text(self.voice, anchor) + piece
        return first
